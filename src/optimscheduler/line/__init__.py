"""The line of a batch: from its losses to the moved weights, for one or several members."""
