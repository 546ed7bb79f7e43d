"""What a compression or an export writes: weights, model card, record, and the summary of it."""
