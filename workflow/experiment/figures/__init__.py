"""Draw the paper's figures."""
