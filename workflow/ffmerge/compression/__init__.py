"""The tool that compresses a user's own model: `ffmerge inspect`, `compress` and `export`."""
