"""Training that resumes after a kill (Section 3.4, Tables 6 to 8)."""
