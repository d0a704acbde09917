"""From a gradient to moved weights: the norm, clipping, the decision, the kernel, the average."""
