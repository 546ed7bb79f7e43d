"""Perplexity with a sliding window, retrieval, and storage."""
