"""The passes of the program; each is run(config) -> result and speaks through files."""
