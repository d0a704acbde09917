"""What a training step costs, measured against loops written by hand and against other libraries."""
