"""The report page of a run: one file with all tables and figures, each number with its lineage."""
