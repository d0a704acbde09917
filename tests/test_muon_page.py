"""The configurations of docs/muon.md and examples/char_lm/muon.yaml train as a plain loop does."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from optimscheduler import build_optim_sches

ROOT = Path(__file__).parent.parent


class Layers(nn.Module):
    """An embedding, layers with matrices and vectors, a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.symbol = nn.Embedding(6, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.symbol(x)
        for layer in self.layers:
            h = layer(h).tanh()
        return nn.functional.cross_entropy(self.head(h).flatten(0, 1), x.roll(1, 1).flatten())

    def matrices(self) -> list[nn.Parameter]:
        return [p for p in self.layers.parameters() if p.ndim == 2]

    def others(self) -> list[nn.Parameter]:
        theirs = set(self.matrices())
        return [p for p in self.parameters() if p not in theirs]


def on_the_page() -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "muon.md").read_text("utf-8"), re.S)
    return [yaml.safe_load(block)["optim_sches"] for block in blocks]


def in_the_example() -> dict[str, Any]:
    text = (ROOT / "examples" / "char_lm" / "muon.yaml").read_text("utf-8")
    described: dict[str, Any] = yaml.safe_load(text)["train_cfg"]["optim_sches"]
    return described


def numbers(value: Any) -> Any:
    """YAML 1.1 reads 3e-3 as text; our reader does not."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+e-\d+", value) else value


def test_the_page_and_the_example_say_the_same() -> None:
    assert on_the_page()[0] == in_the_example()


@pytest.mark.parametrize("described", [on_the_page()[0]])
def test_two_optimizers_and_one_clip(described: dict[str, Any]) -> None:
    model, twin = Layers().double(), Layers().double()
    optims = build_optim_sches(model, numbers(copy.deepcopy(described)), use_amp=False, grad_clip=0.1)
    muon = torch.optim.Muon(twin.matrices(), lr=0.02)
    rest = torch.optim.AdamW(twin.others(), lr=3e-3)
    g = torch.Generator().manual_seed(2)
    for _ in range(6):
        x = torch.randint(6, (3, 5), generator=g)
        optims.step(model(x))
        twin(x).backward()
        assert float(nn.utils.clip_grad_norm_(twin.parameters(), 0.1)) > 0.1
        for optimizer in (muon, rest):
            optimizer.step()
            optimizer.zero_grad()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


def test_one_class_with_several_algorithms() -> None:
    kind = pytest.importorskip("pytorch_optimizer").Muon
    model, twin = Layers(), Layers()
    (optim,) = build_optim_sches(model, numbers_in_rules(on_the_page()[1]), use_amp=False).values()
    optimizer = kind(
        [
            {"params": twin.matrices(), "use_muon": True},
            {"params": twin.others(), "use_muon": False, "lr": 3e-3},
        ],
        lr=0.02,
    )
    x = torch.randint(6, (3, 5), generator=torch.Generator().manual_seed(2))
    for _ in range(6):
        optim.step(model(x))
        twin(x).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)  # float32


def numbers_in_rules(described: dict[str, Any]) -> dict[str, Any]:
    conf = numbers(described["conf"])
    return {"conf": {**conf, "param_groups": [numbers(rule) for rule in conf["param_groups"]]}}
