"""The user's data: from files to batches as a model's forward takes them."""
