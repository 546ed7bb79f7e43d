"""Run jobs with records, trace numbers to what they come from, and verify them."""
