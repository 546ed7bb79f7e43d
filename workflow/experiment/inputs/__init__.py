"""Fetch, unpack and convert the paper's real inputs into the files that the workflow reads."""

NEEDS_NETWORK = "this job runs on a node that has a network"
