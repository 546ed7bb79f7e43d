"""Metrics, confidence intervals, cost and storage."""
