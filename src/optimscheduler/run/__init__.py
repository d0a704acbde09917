"""Train from one YAML file: the reference runner and the command line, with the extra `run`."""
