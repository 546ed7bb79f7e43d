"""Merging feed-forward sublayers for compressed Transformers.

Modules are named after what the paper names; imports go one way:
scripts -> tasks -> method (features, permutation, merge, tie, windows) -> architectures.
"""
