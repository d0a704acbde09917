"""The gallery of schedules: its examples, its figures, its page. `docs/hooks.py` gives them to mkdocs."""
