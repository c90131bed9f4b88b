"""Disease boxes from chest X-rays that have only image-level labels."""

__version__ = "0.1.0"
