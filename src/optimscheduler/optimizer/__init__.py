"""The optimizer: found, built, and the numbers in its groups."""
