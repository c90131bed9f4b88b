"""One file a command: its options, one call of its stage, and what is said of the result."""
