"""Perplexity with a sliding window, the clusters of test examples, and storage."""
