"""`ffmerge report`: one page with all tables and figures, each number with its lineage."""
