"""`ffmerge reproduce`: make one number again, and compare."""
