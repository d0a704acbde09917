"""The types in public signatures: they name every word that is allowed, and no other."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path
from typing import Any

import pytest

import optimscheduler
from optimscheduler import ConfigError, OptimScheduler, OptimSchedulerDict, written
from tests.cases_models import a_model, optim_of

PUBLIC = [
    OptimScheduler.__init__,
    OptimScheduler.from_optimizer,
    OptimScheduler.step,
    OptimScheduler.forward,
    OptimScheduler.load_state_dict,
    OptimScheduler.check_state,
    OptimSchedulerDict.__init__,
    OptimSchedulerDict.step,
    OptimSchedulerDict.load_state_dict,
]


def words(alias: Any) -> set[str]:
    """The words that a type names."""
    if typing.get_origin(alias) is typing.Literal:
        return set(typing.get_args(alias))
    return {word for part in typing.get_args(alias) for word in words(part)}


def build(**arguments: Any) -> OptimScheduler:
    return optim_of(a_model(), **arguments)


@pytest.mark.parametrize(
    ("key", "alias"),
    [
        ("use_amp", written.UseAmp),
        ("accum_grad", written.AccumGrad),
        ("grad_norm_type", written.GradNormType),
        ("lr_clock", written.LrClock),
        ("layout", written.Layout),
    ],
)
def test_words_that_a_type_names_are_those_that_are_allowed(key: str, alias: Any) -> None:
    assert words(alias)
    assert typing.get_type_hints(OptimScheduler.__init__)[key] == alias
    for word in words(alias):
        build(**{key: word})
    with pytest.raises(ConfigError):
        build(**{key: "another"})


def test_words_of_a_mismatch_and_of_a_dict() -> None:
    optim = build()
    for word in words(written.OnMismatch):
        optim.load_state_dict(build().state_dict(), word)  # type: ignore[arg-type]
    for word in words(written.Unowned):
        OptimSchedulerDict({"main": optim}, unowned=word)  # type: ignore[arg-type]
    assert (len(words(written.OnMismatch)), len(words(written.Unowned))) == (3, 2)


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__qualname__)
def test_every_argument_says_more_than_object(function: Any) -> None:
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in ("self", "cls", "losses") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        assert object not in (hints[name], *typing.get_args(hints[name])), name
        if isinstance(parameter.default, str):
            assert words(hints[name]), f"{name} takes any text"


GOOD = """
import torch
from optimscheduler import OptimScheduler, OptimSchedulerDict
from optimscheduler.schedules import Cosine, NewBob
model = torch.nn.Linear(2, 2)
loss = model(torch.zeros(2)).sum()
for schedule in (Cosine(steps=9), NewBob(), "Cosine(steps=9)", {"type": "Constant"}, None):
    optim = OptimScheduler("SGD", {"lr": 0.1}, model, schedule=schedule, accum_grad="host", use_amp="bf16")
rules = [{"name": "weight", "lr": 0.1}, {"ndim": "<2", "weight_decay": 0}]
moves = {"weight_decay": "Linear(steps=9)"}
conf: dict[str, float] = {"lr": 0.1, "weight_decay": 0.1}
OptimScheduler(torch.optim.AdamW, conf, model, param_groups=rules, schedules=moves, guard={"z": 6})
taken = OptimScheduler.from_optimizer(torch.optim.SGD(model.parameters()), model, grad_norm_type="inf")
taken.step(loss, last=True).read()
taken.step({"loss": loss}, weight=3)
OptimSchedulerDict({"main": taken}, unowned="error").step(loss)["main"].read()
taken.load_state_dict(taken.state_dict(), "config")
"""

BAD = {
    'accum_grad="hots"': "accum_grad",
    'use_amp="fp61"': "use_amp",
    'layout="flta"': "layout",
    'lr_clock="windows"': "lr_clock",
    "schedule=3": "schedule",
    "schedules=[3]": "schedules",
    'param_groups=["norm"]': "param_groups",
    'guard="six"': "guard",
    'grad_norm_type="max"': "grad_norm_type",
}


@pytest.mark.slow  # mypy reads torch
def test_mypy_takes_what_is_allowed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPYPATH", str(Path(optimscheduler.__file__).parents[1]))
    api = pytest.importorskip("mypy.api")
    lines = [f'OptimScheduler("SGD", {{"lr": 0.1}}, model, {each})' for each in BAD]
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text("\n".join([*GOOD.splitlines()[:5], *lines]))
    options = ["--strict", "--no-incremental", "--follow-imports=silent", "--config-file="]
    told, _, _ = api.run([*options, str(tmp_path / "good.py"), str(tmp_path / "bad.py")])
    assert "good.py" not in told, told
    for number, key in enumerate(BAD.values(), start=6):
        assert f'bad.py:{number}: error: Argument "{key}"' in told or (
            f"bad.py:{number}: error: List item" in told
        ), told
