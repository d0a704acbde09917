"""What the package offers, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import optimscheduler

NOT_NEEDED = ["numpy", "yaml", "pydantic", "rich", "typer", "matplotlib", "tensorboard"]


def python(code: str) -> str:
    """What a fresh interpreter prints; warnings are errors there too."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert optimscheduler.__all__ == sorted(optimscheduler.__all__)
    for name in optimscheduler.__all__:
        assert getattr(optimscheduler, name).__name__ in (name, "Noamlr")  # NoamLr is another name of Noamlr
    assert set(optimscheduler.__all__) <= set(dir(optimscheduler))


def test_every_error_of_the_tree_is_offered() -> None:
    from optimscheduler import errors

    assert {n for n in errors.__all__ if n[0].isupper()} <= set(optimscheduler.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'optimscheduler' has no attribute 'Optimscheduler'$"):
        getattr(optimscheduler, "Optimscheduler")  # noqa: B009 -- a name that a checker would not accept


def test_importing_the_package_imports_no_torch_until_a_name_is_used() -> None:
    code = """
import sys, optimscheduler
print("torch" in sys.modules)
optimscheduler.ConfigError
print("torch" in sys.modules)
optimscheduler.OptimScheduler
print("torch" in sys.modules)
"""
    assert python(code).split() == ["False", "False", "True"]


@pytest.mark.parametrize(
    "module",
    ["schedules", "schedules.grammar", "window.clock", "api.hooks", "errors", "checks", "lookup"],
)
def test_the_pure_parts_import_no_torch(module: str) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
import optimscheduler.{module}
print("fine")
"""
    assert python(code) == "fine"


def test_schedules_work_without_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None
from optimscheduler.schedules import Cosine, Warmup
print(Warmup(steps=2, then=Cosine(steps=9))(1))
"""
    assert python(code) == "0.5"


def test_the_core_needs_torch_and_nothing_else() -> None:
    code = f"""
import sys, warnings
for name in {NOT_NEEDED}:
    sys.modules[name] = None
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # torch's own, without numpy
import torch
from torch import nn
from optimscheduler import *
for precision in (False, "bf16", "fp16"):
    model = nn.Linear(2, 1)
    described = {{"type": "noam.Noamlr", "conf": {{"optim_type": "Adam", "optim_conf": {{"lr": 0.1}}}}}}
    optims = build_optim_sches(model, described, use_amp=precision, accum_grad=2)
    for _ in range(3):
        with optims.forward():
            loss = model(torch.ones(3, 2)).float().square().mean() / 1000
        report = optims.step({{"loss": loss}})["main"]
    state = optims.state_dict()
    optims.load_state_dict(state)
    print(optims["main"].state_dict()["ledger"]["applied"], list(optims.flush()))
"""
    assert python(code).splitlines() == ["1 ['main']"] * 3


def test_star_imports_what_all_says() -> None:
    names = python(
        "from optimscheduler import *; print(*sorted(n for n in globals() if n[0] != '_'))"
    ).split()
    assert names == optimscheduler.__all__
