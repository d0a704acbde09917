"""What schedules have in common: values that show themselves as what one writes in YAML."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, ClassVar, Self

from optimscheduler.schedules.lengths import Length, Run, in_steps, is_rest

__all__ = ["Written"]


class Written:
    """A value whose `repr` is the text that a configuration holds: `Warmup(steps=100, then=Constant())`.

    A dataclass that inherits this must be declared with `repr=False`.
    """

    __slots__ = ()

    LENGTHS: ClassVar[tuple[str, ...]] = ()
    """Arguments that are lengths: `"rest"` for one of them is what the others leave."""

    @property
    def known(self) -> bool:
        """Whether all its lengths are real steps, so that it can be called."""
        return not is_dataclass(self) or all(_known(getattr(self, f.name)) for f in fields(self) if f.init)

    def resolved(self, run: Run) -> Self:
        """The same with real steps for all lengths that depend on the run, such as `"10%"`.

        Raises:
            ConfigError: the run does not say what is needed, or is too short.
        """
        return self._fit(run, run.steps)

    def _fit(self, run: Run, left: int) -> Self:
        """`resolved`, with so many real steps left of the run."""
        if not is_dataclass(self):
            return self
        name = type(self).__name__
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        taken = 0
        for key in sorted(self.LENGTHS, key=lambda key: is_rest(given[key])):
            if given[key] is not None:
                given[key] = in_steps(f"{name}: {key}", given[key], run, left - taken)
                taken += given[key]
        for key, value in given.items():
            given[key] = self._fit_part(f"{name}: {key}", value, run, left)
        return replace(self, **given)

    def _fit_part(self, where: str, value: Any, run: Run, left: int) -> Any:  # Any: an argument of some kind
        if isinstance(value, Length):
            return value.steps(where, run, left)
        if isinstance(value, Written):
            return value._fit(run, left)
        if isinstance(value, tuple):
            return tuple(self._fit_part(where, part, run, left) for part in value)
        return value

    def __repr__(self) -> str:
        if not is_dataclass(self):
            return super().__repr__()
        arguments: list[str] = []
        left_out = False
        for argument in fields(self):
            if not argument.init:
                continue
            value = getattr(self, argument.name)
            if argument.default is not MISSING and value == argument.default:
                left_out = True  # what follows has lost its position and needs its name
            else:
                name = f"{argument.name}=" if left_out or argument.kw_only else ""
                arguments.append(name + _text(value))
        return f"{_name(type(self))}({', '.join(arguments)})"

    def _keep(self, **checked: object) -> None:
        """Store checked arguments in a frozen dataclass; for `__post_init__` alone."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def _name(cls: type) -> str:
    """How a configuration names a class: shortly if it is ours, by its dotted path if it is not."""
    ours = cls.__module__.rpartition(".")[0] == __package__
    return cls.__qualname__ if ours else f"{cls.__module__}.{cls.__qualname__}"


def _text(value: object, *, nested: bool = False) -> str:
    """An argument in the language of the grammar; a tuple becomes a list, and tuples in it stay tuples."""
    if isinstance(value, tuple):
        parts = ", ".join(_text(part, nested=True) for part in value)
        comma = "," if len(value) == 1 else ""
        return f"({parts}{comma})" if nested else f"[{parts}]"
    if isinstance(value, str):
        return _quoted(value)
    if hasattr(value, "__qualname__"):  # a function or a class, found again by its path
        return _quoted(f"{value.__module__}.{value.__qualname__}")
    return repr(value)


def _quoted(text: str) -> str:
    plain = text.isprintable() and '"' not in text and "\\" not in text
    return f'"{text}"' if plain else repr(text)


def _known(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_known, value))
    return value.known if isinstance(value, Written) else not isinstance(value, Length)
