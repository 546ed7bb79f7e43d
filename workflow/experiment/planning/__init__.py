"""What the paper's experiment takes, before it is run: jobs, hours, disk, and the longest path."""
