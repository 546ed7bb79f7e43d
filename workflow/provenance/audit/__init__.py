"""`ffmerge audit`: make a random sample of the numbers again."""
