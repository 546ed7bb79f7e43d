"""`ffmerge explain`: which numbers are stale, and because of which change."""
