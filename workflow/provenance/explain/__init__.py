"""`ffmerge explain`: which numbers are stale, because of which change."""
