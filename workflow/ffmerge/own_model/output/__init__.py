"""What a compression writes: weights, model card, record, and the summary of it all."""
