"""The paper's real inputs: fetched, unpacked and converted into what the workflow reads."""
