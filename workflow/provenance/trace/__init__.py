"""`ffmerge trace`: where a number comes from."""
