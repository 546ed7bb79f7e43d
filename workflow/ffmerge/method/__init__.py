"""The method of the paper (Section 3): features, alignment, merging, tying, windows; baselines."""
