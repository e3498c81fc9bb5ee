"""Layers that share their weights across space."""
