"""`ffmerge collect`: tables with everything that answers for them, in one folder."""
