"""The OptimSchedulers that come with SpeeChain, under their names."""

from __future__ import annotations

from optimscheduler.origin.exp import ExponentDecayLr
from optimscheduler.origin.noam import NoamLr, Noamlr

__all__ = ["ExponentDecayLr", "NoamLr", "Noamlr"]
