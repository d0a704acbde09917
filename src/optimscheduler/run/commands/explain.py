"""`optimscheduler explain`: show what a training would do, without doing it."""

from __future__ import annotations

from rich.console import Console as Screen

from optimscheduler.run.config.schema import RunConfig
from optimscheduler.run.data.batches import open_data
from optimscheduler.run.distributed.device import device_named
from optimscheduler.run.plan.plan import make_plan
from optimscheduler.run.plan.report import show_config, show_plan

__all__ = ["explain"]


def explain(config: RunConfig, screen: Screen) -> int:
    """Show the configuration, and what follows from it.

    Returns:
        The exit code.
    """
    data = open_data(config)
    show_config(screen, config, data, device_named(config.device))
    show_plan(screen, make_plan(config, data.batches, tokens_per_item=data.tokens_per_item), curve=True)
    return 0
