"""Which parameters a configuration means: by name, by number of dimensions, or by both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from optimscheduler.errors import ConfigError, nearest

__all__ = ["Selector", "check_ndim", "fits_ndim", "pattern", "read_ndim", "read_selector"]

_KEYS: Final = ("name", "ndim")
_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "<=": int.__le__,
    ">=": int.__ge__,
    "==": int.__eq__,
    "<": int.__lt__,
    ">": int.__gt__,
}


def pattern(text: str) -> re.Pattern[str]:
    """A module's or parameter's name; `*` is anything, `#` a number, and a module stands for all in it.

    >>> bool(pattern("encoder.layers.#").fullmatch("encoder.layers.11.norm.bias"))
    True
    """
    first, *rest = (re.escape(part).replace(r"\#", r"(\d+)") for part in re.split(r"\*+", text))
    inner = "".join(
        f"(?>.*?{part})" for part in rest[:-1]
    )  # the first place will do: others take ever longer
    body = f"{first}{inner}.*{rest[-1]}" if rest else first
    return re.compile(rf"{body}(\..*)?")


def read_ndim(written: object) -> str:
    """A number of dimensions as text: `2` is `"==2"`; anything else is for `check_ndim` to refuse."""
    if isinstance(written, int) and not isinstance(written, bool):
        return f"=={written}"
    return written if isinstance(written, str) else repr(written)


def check_ndim(where: str, ndim: str) -> None:
    """Check a number of dimensions.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch(r"(<=|>=|==|<|>)\s*\d{1,9}", ndim):
        raise ConfigError(f"{where}: ndim must be like 1, '<2' or '>=2', got {ndim!r:.80}")


def fits_ndim(ndim: str, dimensions: int) -> bool:
    """Whether that many dimensions are meant.

    >>> fits_ndim(">=2", 2), fits_ndim("<2", 2)
    (True, False)
    """
    sign = ndim.rstrip("0123456789 ")
    return _COMPARISONS[sign](dimensions, int(ndim[len(sign) :]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Parameters by name, by number of dimensions, or by both.

    Attributes:
        written: as it stands in the configuration.
        names: names or patterns, of which one must fit.
        ndim: as for a rule of `param_groups`; empty for any.
    """

    written: object
    names: tuple[str, ...]
    ndim: str

    def fits(self, aliases: Iterable[str], dimensions: int) -> bool:
        """Whether a parameter with these names and dimensions is meant."""
        if self.ndim and not fits_ndim(self.ndim, dimensions):
            return False
        return any(pattern(name).fullmatch(alias) for name in self.names for alias in aliases)


def read_selector(where: str, written: object) -> Selector:
    """What `updated_modules` and `exclude` hold: a name or pattern, or a mapping with `name` and `ndim`.

    Args:
        where: the setting, for messages.
        written: `"encoder"`, `{"ndim": 2}`, or `{"name": "encoder", "ndim": ">=2"}`; `name` may be a list.

    Raises:
        ConfigError: it is something else; with the nearest key.

    >>> read_selector("exclude", {"name": "blocks", "ndim": 2}).fits(["blocks.0.weight"], 2)
    True
    """
    if isinstance(written, str) and written:
        return Selector(written=written, names=(written,), ndim="")
    if not isinstance(written, Mapping) or not written:
        raise ConfigError(
            f"{where} must be a name or a list of names, or mappings like {{name: blocks, ndim: 2}}, "
            f"got {written!r:.80}"
        )
    for key in written:
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key!r:.80}. {nearest(key, _KEYS)}")
    name = written.get("name", "*")
    names = tuple(name) if isinstance(name, list | tuple) else (name,)
    if not names or not all(isinstance(each, str) and each for each in names):
        raise ConfigError(f"{where}: name must be a pattern or a list of patterns, got {name!r:.80}")
    ndim = read_ndim(written["ndim"]) if "ndim" in written else ""
    if "ndim" in written:
        check_ndim(where, ndim)
    return Selector(written=written, names=names, ndim=ndim)
