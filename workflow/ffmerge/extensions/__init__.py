"""What the paper does not do: groups of any layers, relaxed tying, local reconstruction."""
