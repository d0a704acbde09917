"""The state of an OptimScheduler: saved as plain values by name, checked as a whole, then loaded."""
