"""A model of one's own: what `ffmerge compress` and `ffmerge inspect` do."""
