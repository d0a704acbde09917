"""The training loop: one epoch after another, with validation, checkpoints and what is logged."""
