"""Boxes and probabilities against truth."""
