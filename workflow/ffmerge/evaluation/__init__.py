"""Metrics with their intervals, and what models cost to run."""
