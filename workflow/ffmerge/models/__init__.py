"""Models in memory and on disk: where FF sublayers are, how weights are read and written."""
