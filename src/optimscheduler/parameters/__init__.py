"""Which parameters are optimised, under which names, with which rules."""
