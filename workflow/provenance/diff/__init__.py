"""`ffmerge diff`: where two runs of one configuration part."""
