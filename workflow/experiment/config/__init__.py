"""The configuration: typed, validated before any job starts, documented from the same classes.

`python config/reference.py` writes `config/README.md` and `config/schema.json` from these classes
and descriptions; a test keeps them in step. Snakemake imports the package at every
start, so it does without torch. `Config` and the check are in experiment.config.run, which no job
imports: a job depends on the settings of its task alone.
"""
