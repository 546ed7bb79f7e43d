"""Make the paper's tables from the results of tests."""
