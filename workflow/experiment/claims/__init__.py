"""Compare the paper's numbers with ours, and test its claims."""
