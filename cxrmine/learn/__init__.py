"""The network, its batches, its loop, and what a run leaves on disk."""
