"""Compares alignment methods for text-to-image diffusion models: ``python -m benchmark --help``."""
