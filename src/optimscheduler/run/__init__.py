"""The reference runner and the command line: one YAML in, one run folder out.

`runner.py` is the loop itself, and the place to begin reading. This room needs the extra
`optimscheduler[run]`; nothing outside of it does.
"""
