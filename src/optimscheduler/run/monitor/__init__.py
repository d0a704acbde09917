"""Who watches a run: the console, files of JSON lines, TensorBoard."""

from __future__ import annotations

from optimscheduler.run.monitor.console import Console
from optimscheduler.run.monitor.jsonl import JsonLines
from optimscheduler.run.monitor.pictures import Pictures
from optimscheduler.run.monitor.protocol import Monitor, Record, Several
from optimscheduler.run.monitor.tensorboard import TensorBoard

__all__ = ["Console", "JsonLines", "Monitor", "Pictures", "Record", "Several", "TensorBoard"]
