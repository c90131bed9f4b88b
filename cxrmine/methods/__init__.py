"""One paper, one file: losses and maps."""
