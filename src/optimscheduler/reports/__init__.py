"""What became of each window: counters, reports, where a refused gradient came from."""
