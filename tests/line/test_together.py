"""`clip_together`: one norm over several members, against two optimizers of torch in a plain loop."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import (
    CheckpointError,
    ConfigError,
    NonFiniteError,
    OptimSchedulerDict,
    build_optim_sches,
)
from optimscheduler.line.closing import joint_norm

torch.set_num_threads(1)

Members = dict[str, Any]


class Blocks(nn.Module):
    """Matrices in blocks, an embedding and a head; two losses overlap in the blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embed = nn.Embedding(7, 4)
        self.blocks = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        self.head = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.blocks(self.embed(x))
        loss = nn.functional.cross_entropy(self.head(h).flatten(0, 1).float(), x.roll(1, 1).flatten())
        return {"loss": loss, "size": 30 * h.float().square().mean()}

    def matrices(self) -> list[nn.Parameter]:
        return [p for p in self.blocks.parameters() if p.ndim == 2]

    def others(self) -> list[nn.Parameter]:
        theirs = set(self.matrices())
        return [p for p in self.parameters() if p not in theirs]


def data(count: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [torch.randint(7, (3, 5), generator=g) for _ in range(count)]


def described(clip: Any = 0.4, together: Any = True, **more: Any) -> dict[str, Any]:
    """Muon for the matrices in the blocks, AdamW for the rest."""
    matrices = {"name": "blocks", "ndim": 2}
    both: Members = {"grad_clip": clip, "use_amp": False, **more}
    return {
        "muon": {
            "conf": {"optim_type": "Muon", "optim_conf": {"lr": 0.02}, "updated_modules": matrices, **both}
        },
        "rest": {"conf": {"optim_type": "AdamW", "optim_conf": {"lr": 3e-3}, "exclude": matrices, **both}},
        "clip_together": together,
    }


def optimizers_over(model: Blocks) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.Muon(model.matrices(), lr=0.02),
        torch.optim.AdamW(model.others(), lr=3e-3),
    ]


def largest_difference(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def by_hand(
    model: Blocks, optimizers: Sequence[torch.optim.Optimizer], parameters: list[nn.Parameter], clip: float
) -> float:
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if norm.isfinite():
        for optimizer in optimizers:
            optimizer.step()
    for optimizer in optimizers:
        optimizer.zero_grad()
    return float(norm)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, "inf"])
@pytest.mark.parametrize("weights", [None, [3.0, 1.0, 2.0]])
@pytest.mark.parametrize("accum_grad", [1, 2])
def test_R19_one_norm_over_two_members_is_clip_grad_norm_over_both(
    accum_grad: int, weights: list[float] | None, norm_type: Any
) -> None:
    """With a short last window, and a NaN in one member's gradient: both are skipped."""
    model, twin = Blocks().double(), Blocks().double()
    optims = build_optim_sches(model, described(accum_grad=accum_grad, grad_norm_type=norm_type))
    optimizers = optimizers_over(twin)
    batches, total, reported, expected = data(11), 0.0, [], []
    for n, x in enumerate(batches, start=1):
        weight = None if weights is None else weights[n % 3]
        with optims.forward(last=n == len(batches)):
            losses = model(x)
        if n == 4:
            hook = model.blocks[0].weight.register_hook(lambda g: g * math.nan)
        reports = optims.step(losses, weight=weight)
        if n == 4:
            hook.remove()
        ((weight or 1.0) * twin(x)["loss"]).backward()
        if n == 4:
            twin.blocks[0].weight.grad.mul_(math.nan)
        total += weight or 1.0
        if n % accum_grad and n < len(batches):
            assert not reports["muon"].completes
            continue
        for p in twin.parameters():
            p.grad /= total
        norm = nn.utils.clip_grad_norm_(twin.parameters(), 0.4, float(norm_type))
        for optimizer in optimizers:
            if norm.isfinite():
                optimizer.step()
            optimizer.zero_grad()
        total = 0.0
        read = {name: report.read() for name, report in reports.items()}
        assert read["muon"].skipped is read["rest"].skipped is (not norm.isfinite())
        reported += [read["muon"].grad_norm, read["rest"].grad_norm]
        expected += [float(norm)] * 2
    assert reported == pytest.approx(expected, nan_ok=True)
    assert sum(math.isnan(norm) for norm in reported) == 2, "one window was refused, by both"
    assert max(expected) > 0.4 or norm_type == "inf", "something was clipped"
    assert largest_difference(model, Blocks().double()) > 1e-2
    assert largest_difference(model, twin) < 1e-10
    applied = {name: optim.state_dict()["ledger"]["applied"] for name, optim in optims.items()}
    assert applied["muon"] == applied["rest"] == len(expected) // 2 - 1


def test_each_loss_is_divided_by_its_own_weight_and_scale() -> None:
    """Two losses with weights and scales of their own; the norm is of the gradients as they are applied."""
    model, twin = Blocks(), Blocks()
    conf = described(use_amp="fp16")
    conf["muon"]["conf"]["optim_loss"] = "size"
    optims = build_optim_sches(model, conf)
    for name, scale in {"muon": 2.0**6, "rest": 2.0**9}.items():
        optims[name].scaler.value.fill_(scale)
    optimizers = optimizers_over(twin)
    for x in data(6):
        with optims.forward():
            losses = model(x)
        reports = optims.step(losses, weight={"size": 3.0, "loss": 5.0})
        with torch.autocast("cpu", torch.float16):
            losses = twin(x)
        ours = [(twin.matrices(), losses["size"], 2.0**6), (twin.others(), losses["loss"], 2.0**9)]
        for parameters, loss, scale in ours:
            found = torch.autograd.grad(loss * scale, parameters, retain_graph=True, allow_unused=True)
            for p, gradient in zip(parameters, found, strict=True):
                p.grad = gradient / scale
        norm = by_hand(twin, optimizers, list(twin.parameters()), 0.4)
        assert reports["muon"].read().grad_norm == pytest.approx(norm, rel=1e-3)  # weights in float16
    assert largest_difference(model, Blocks()) > 1e-2
    # torch's Muon works in bfloat16, where last bits of float16 gradients are not quite forgotten
    assert largest_difference(model, twin) < 2e-3


@pytest.mark.parametrize("use_amp", ["fp16", "bf16"])
def test_a_shared_loss_in_mixed_precision(use_amp: Any) -> None:
    model, twin = Blocks(), Blocks()
    conf = described(use_amp=use_amp)
    conf["muon"]["conf"] |= {"optim_type": "SGD"}
    optims = build_optim_sches(model, conf)
    optimizers = [torch.optim.SGD(twin.matrices(), lr=0.02), torch.optim.AdamW(twin.others(), lr=3e-3)]
    scale = 1.0
    if use_amp == "fp16":
        scale = 2.0**8
        optims["muon"].scaler.value.fill_(scale)
    for x in data(6):
        with optims.forward():
            losses = model(x)
        optims.step(losses)
        with torch.autocast("cpu", torch.float16 if use_amp == "fp16" else torch.bfloat16):
            losses = twin(x)
        (losses["loss"] * scale).backward()
        for p in twin.parameters():
            p.grad /= scale
        by_hand(twin, optimizers, list(twin.parameters()), 0.4)
    assert largest_difference(model, twin) < 1e-5  # float32


def test_only_the_loss_scale_whose_gradient_overflows_falls() -> None:
    model = Blocks()
    conf = described(use_amp="fp16")
    conf["muon"]["conf"]["optim_loss"] = "size"
    optims = build_optim_sches(model, conf)
    for name in optims:
        optims[name].scaler.value.fill_(256.0)
    (x,) = data(1)
    with optims.forward():
        losses = model(x)
    reports = optims.step({**losses, "size": losses["size"] * 1e30})
    assert [reports[name].read().skipped for name in ("muon", "rest")] == [True, True]
    assert (optims["muon"].scaler.get_scale(), optims["rest"].scaler.get_scale()) == (128.0, 256.0)


@pytest.mark.parametrize(
    "clip", [{"value": 0.01, "norm": 0.03}, {"agc": 0.05, "norm": 0.03}, {"value": 0.01}]
)
def test_part_by_part_comes_before_the_common_norm(clip: dict[str, float]) -> None:
    model, twin = Blocks().double(), Blocks().double()
    optims = build_optim_sches(model, described(clip))
    optimizers = optimizers_over(twin)
    for x in data(5):
        optims.step(model(x))
        twin(x)["loss"].backward()
        for p in twin.parameters():
            if "value" in clip:
                p.grad.clamp_(-clip["value"], clip["value"])
            else:
                units = [(p.detach(), p.grad)] if p.ndim < 2 else zip(p.detach(), p.grad, strict=True)
                for weight, gradient in units:
                    most = 0.05 * max(float(weight.norm()), 1e-3)
                    gradient.mul_(min(1.0, most / max(float(gradient.norm()), 1e-12)))
        by_hand(twin, optimizers, list(twin.parameters()), clip.get("norm", math.inf))
    assert largest_difference(model, Blocks().double()) > 1e-2
    assert largest_difference(model, twin) < 1e-9


def test_R34_it_goes_on_from_a_state_in_mid_window_bit_for_bit() -> None:
    model, twin = Blocks(), Blocks()
    more = {"accum_grad": 2, "guard": {"z": 50.0, "window": 8, "warm_up": 2}}
    optims = build_optim_sches(model, described(**more))
    resumed = build_optim_sches(twin, described(**more))
    batches = data(15)
    for n, x in enumerate(batches):
        if n == 7:
            twin.load_state_dict(copy.deepcopy(model.state_dict()))
            resumed.load_state_dict(copy.deepcopy(optims.state_dict()))
        for each, over in ((model, optims), (twin, resumed)) if n >= 7 else ((model, optims),):
            with over.forward():
                losses = each(x)
            over.step({name: loss * (1000 if n == 13 else 1) for name, loss in losses.items()})
    assert largest_difference(model, twin) == 0
    for over in (optims, resumed):
        skipped = [over[name].state_dict()["ledger"]["skipped"] for name in over]
        assert skipped == [1, 1], "the guard refused the spike for both"
    norms = [optims[name].state_dict()["guard"]["norms"] for name in optims]
    assert repr(norms[0]) == repr(norms[1])  # NaN is a free place


def test_R23_what_is_common_is_the_norm_that_the_guard_hears() -> None:
    optims = build_optim_sches(Blocks(), described(guard=6))
    assert optims["muon"].member.guard is optims["rest"].member.guard


def test_a_state_says_who_was_clipped_together() -> None:
    state = build_optim_sches(Blocks(), described()).state_dict()
    apart = build_optim_sches(Blocks(), described(together=False))
    with pytest.raises(
        CheckpointError, match=r"clip_together: \['muon', 'rest'\] in the checkpoint, missing"
    ):
        apart.load_state_dict(state)
    apart.load_state_dict(state, on_mismatch="config")
    assert "clip_together" not in apart.state_dict()["muon"]["config"]
    apart.load_state_dict(state, on_mismatch="checkpoint")
    assert apart.state_dict()["rest"]["config"]["clip_together"] == ["muon", "rest"]
    with pytest.raises(ConfigError, match="stepped together"):
        apart["muon"].step({})
    both = build_optim_sches(Blocks(), described())
    both.load_state_dict(build_optim_sches(Blocks(), described(together=False)).state_dict(), "checkpoint")
    assert "clip_together" not in both.state_dict()["muon"]["config"]


def test_windows_that_end_in_other_batches_cannot_be_resumed_together() -> None:
    model = Blocks()
    apart = build_optim_sches(model, described(together=False, accum_grad=2))
    (x,) = data(1)
    apart.step(model(x), only="muon")
    apart.step(model(x), only="muon")
    both = build_optim_sches(Blocks(), described(accum_grad=2))
    before = copy.deepcopy(both.state_dict())
    with pytest.raises(CheckpointError, match=r"the windows of muon, rest do not end in the same batches"):
        both.load_state_dict(apart.state_dict(), on_mismatch="config")
    assert both.state_dict()["muon"]["clock"] == before["muon"]["clock"]


def test_a_refusal_says_whose_gradient_it_was(caplog: pytest.LogCaptureFixture) -> None:
    model = Blocks()
    optims = build_optim_sches(model, described())
    model.blocks[0].weight.register_hook(lambda g: g * math.inf)
    optims.step(model(data(1)[0]))
    told = "gradient norm (nan|inf) of muon, rest together; "
    muon, rest = (record.getMessage() for record in caplog.records if "skipped" in record.getMessage())
    assert re.search(told + r"not finite in blocks\.0\.weight \(1 of 2 gradients\)", muon)
    assert re.search(told + "every gradient of its own is finite, look at the others", rest)


def test_R22_too_many_refusals_are_an_error_when_all_have_had_their_turn() -> None:
    model = Blocks()
    conf = described(max_skips=1)
    conf["rest"]["conf"]["max_skips"] = 9
    optims = build_optim_sches(model, conf)
    hook = model.head.weight.register_hook(lambda g: g * math.nan)
    (x,) = data(1)
    optims.step(model(x))
    with pytest.raises(NonFiniteError, match=r"2 gradients in a row were refused \(max_skips=1\)"):
        optims.step(model(x))
    hook.remove()
    assert optims["rest"].state_dict()["ledger"]["skipped"] == 2
    assert all(p.grad is None for p in model.parameters())
    assert {report.read().updated for report in optims.step(model(x)).values()} == {True}


def test_a_frozen_member_is_left_out_of_the_norm() -> None:
    model = Blocks()
    optims = build_optim_sches(model, described())
    for p in model.matrices():
        p.requires_grad_(False)
    (x,) = data(1)
    reports = optims.step(model(x))
    twin = Blocks()
    twin(x)["loss"].backward()
    norm = nn.utils.get_total_norm([p.grad for p in twin.others()])
    assert reports["rest"].read().grad_norm == pytest.approx(float(norm))
    assert reports["muon"].read().updated is False


def test_R13_flush_closes_both() -> None:
    model = Blocks()
    optims = build_optim_sches(model, described(accum_grad=3))
    optims.step(model(data(1)[0]))
    reports = {name: report.read() for name, report in optims.flush().items()}
    assert [report.updated for report in reports.values()] == [True, True]
    assert reports["muon"].grad_norm == reports["rest"].grad_norm


def test_each_member_is_timed_around_its_norm_and_around_its_update() -> None:
    model = Blocks()
    optims = build_optim_sches(model, described())
    timed: list[list[str]] = []

    class Note:
        def __init__(self, names: list[str]) -> None:
            timed.append(names)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    optims.step(model(data(1)[0]), Note)
    assert timed[1:] == [["optim_time", name] for name in ("muon", "rest", "muon", "rest")]


def test_two_sets_and_one_alone() -> None:
    model = Blocks()
    conf = {"optim_type": "SGD", "optim_conf": {"lr": 0.1}, "use_amp": False}
    parts = ["embed", "blocks.0", "blocks.2", "head.weight", "head.bias"]
    members: Members = {part: {"conf": {**conf, "updated_modules": part}} for part in parts}
    sets = [["head.bias", "embed"], ["blocks.0", "blocks.2"]]
    optims = build_optim_sches(model, {**members, "clip_together": sets})
    (x,) = data(1)
    reports = {name: report.read().grad_norm for name, report in optims.step(model(x)).items()}
    twin = Blocks()
    twin(x)["loss"].backward()
    for names in [["embed", "head.bias"], ["blocks.0", "blocks.2"], ["head.weight"]]:
        gradients = [p.grad for n, p in twin.named_parameters() if n.startswith(tuple(names))]
        norm = float(nn.utils.get_total_norm([g for g in gradients if g is not None]))
        assert [reports[name] for name in names] == [pytest.approx(norm)] * len(names)


@pytest.mark.parametrize(
    ("together", "message"),
    [
        (["muon", "rst"], "clip_together: there is no OptimScheduler 'rst'. Did you mean 'rest'?"),
        (["muon"], "clip_together must be true, or a list of two names or more, or a list of such lists; ["),
        ([["muon", "rest"], ["muon", "rest"]], "clip_together: 'muon' is named twice"),
        (
            "muon",
            "clip_together must be true, or a list of two names or more, or a list of such lists, got '",
        ),
        (1, "clip_together must be true, or a list of two names or more, or a list of such lists, got 1"),
        ([], "clip_together must be true, or a list of two names or more, or a list of such lists, got []"),
        ([["muon"], "rest"], "clip_together must be true, or a list of two names or more, or a list of such"),
        ({"conf": {}}, "clip_together must be true, or a list of two names or more, or a list of such"),
    ],
)
def test_a_malformed_clip_together_says_what_is_allowed(together: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_optim_sches(Blocks(), described(together=together))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("accum_grad", 3, "clip_together: accum_grad is 3 for 'rest', 1 for 'muon'"),
        ("step_per_update", 2, "clip_together: step_per_update is 2 for 'rest', 1 for 'muon'"),
        ("grad_clip", None, "clip_together: grad_clip is None for 'rest', 0.4 for 'muon'"),
        (
            "grad_clip",
            {"value": 1.0},
            "clip_together: grad_clip is {'value': 1.0} for 'rest', 0.4 for 'muon'",
        ),
        ("grad_norm_type", "inf", "clip_together: grad_norm_type is inf for 'rest', 2.0 for 'muon'"),
        ("guard", 6, "clip_together: guard is {'z': 6.0, 'window': 128, 'warm_up': 20} for 'rest', None for"),
    ],
)
def test_what_one_norm_needs_in_common_is_named(key: str, value: Any, message: str) -> None:
    conf = described()
    conf["rest"]["conf"][key] = value
    with pytest.raises(ConfigError) as caught:
        build_optim_sches(Blocks(), conf)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("; members that are clipped together need the same")


def test_half_of_a_set_cannot_be_stepped() -> None:
    model = Blocks()
    optims = build_optim_sches(model, described())
    losses = model(data(1)[0])
    with pytest.raises(ConfigError, match="only: muon leaves out rest, and muon, rest are clipped together"):
        optims.step(losses, only=["muon"])
    for alone in (optims["muon"].step, lambda _: optims["muon"].flush()):
        with pytest.raises(
            ConfigError, match=r"muon, rest are clipped together .* of the OptimSchedulerDict"
        ):
            alone(losses)
    assert {report.read().updated for report in optims.step(losses, only=["rest", "muon"]).values()} == {True}


def test_in_python_it_is_an_argument_of_the_dict() -> None:
    members = build_optim_sches(Blocks(), described(together=False))
    optims = OptimSchedulerDict(members, clip_together=True)
    model = members["muon"].model
    first, second = optims.step(model(data(1)[0])).values()
    assert first.read().grad_norm == second.read().grad_norm


@pytest.mark.parametrize(
    ("norms", "norm_type", "joint"),
    [
        ([3.0, 4.0], 2.0, 5.0),
        ([3.0, 4.0], 1.0, 7.0),
        ([3.0, torch.tensor(4.0)], math.inf, 4.0),
        ([torch.tensor(3.0, dtype=torch.float64), torch.tensor(4.0)], 3.0, 91 ** (1 / 3)),
        ([1.0, math.inf], 2.0, math.inf),
        ([1.0], 2.0, 1.0),
    ],
)
def test_the_norm_of_norms(norms: list[Any], norm_type: float, joint: float) -> None:
    assert joint_norm(norms, norm_type) == pytest.approx(joint)
    assert math.isnan(joint_norm([math.nan, *norms], norm_type))
