"""The configuration file: read strictly, checked, overridden from the command line, made into objects."""
