"""The paper's own numbers and findings, held against what a run made."""
