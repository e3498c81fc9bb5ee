"""Layers that share their weights across time."""
