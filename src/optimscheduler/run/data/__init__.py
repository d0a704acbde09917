"""Batches: which there are, in which order, and from which random numbers."""
