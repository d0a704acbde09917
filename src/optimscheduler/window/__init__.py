"""Which batches make an update, and what the open window holds."""
