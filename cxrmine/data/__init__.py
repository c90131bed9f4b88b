"""Datasets: images, labels, splits, and the phantom."""
