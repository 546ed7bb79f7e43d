"""`ffmerge sign`: vouch for a run with one's own SSH key."""
