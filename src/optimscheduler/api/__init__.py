"""What people import: `OptimScheduler`, `OptimSchedulerDict`, `Average`."""
