"""`ffmerge verify`: whether files, records and numbers still agree."""
