"""The paper's experiment: what is run, and the tables, figures and claims that come of it."""
