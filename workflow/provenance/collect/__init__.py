"""`ffmerge collect`: all that answers for the tables in one folder."""
