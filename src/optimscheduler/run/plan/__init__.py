"""What a configuration will do, before it does it: lengths, learning rates, the report of `explain`."""
