"""Bytes to batches: one file per kind of source, validated at the door, plain named tuples out."""
