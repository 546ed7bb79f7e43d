"""The paper's tables: what was tested, and how each table lays it out."""
