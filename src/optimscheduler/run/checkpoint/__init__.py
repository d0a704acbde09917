"""Checkpoints on disk: written whole or not at all, checked when read, removed when old."""
