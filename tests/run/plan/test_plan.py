"""What a run will do, worked out beforehand; and that the run then does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.errors import ConfigError
from optimscheduler.run.plan.duration import Horizon, accumulation
from optimscheduler.run.plan.ownership import Row
from optimscheduler.run.plan.plan import Plan, make_plan
from tests.run.command import call, config_of, metrics, write

CONF = "train_cfg.optim_sches.conf"


def plan_of(*overrides: str, batches: int = 5) -> Plan:
    return make_plan(config_of(*overrides), batches)


def scheduled(schedule: str) -> str:
    """An override: SGD with lr 1 under that schedule."""
    return (
        f"train_cfg.optim_sches={{conf: {{optim_type: SGD, optim_conf: {{lr: 1}}, schedule: '{schedule}'}}}}"
    )


@pytest.mark.parametrize(
    ("partial_window", "windows", "epochs", "batches"),
    [
        ("apply", 9, [1, 1, 1, 2, 2, 2, 3, 3, 3], 5),  # 2 + 2 + 1 batches per epoch
        ("carry", 8, [1, 1, 2, 2, 2, 3, 3, 3], 5),  # ends at batches 2 4 6 8 10 12 14 15 of 15
        ("drop", 6, [1, 1, 2, 2, 3, 3], 4),  # the fifth batch is left out
    ],
)
def test_R13_windows_of_an_epoch_that_is_no_whole_number_of_them(
    partial_window: str, windows: int, epochs: list[int], batches: int
) -> None:
    horizon = plan_of(f"partial_window={partial_window}").horizon
    assert horizon.windows == windows
    assert [horizon.epoch_of(real_step) for real_step in range(1, windows + 1)] == epochs
    assert horizon.batches == batches


@given(
    st.integers(1, 5),
    st.integers(1, 30),
    st.integers(1, 7),
    st.sampled_from(["apply", "carry", "drop"]),
)
def test_R13_a_walk_through_the_batches_agrees(
    epochs: int, batches: int, accum_grad: int, partial: str
) -> None:
    config = config_of(f"num_epochs={epochs}", f"accum_grad={accum_grad}", f"partial_window={partial}")
    if partial == "drop" and batches < accum_grad:
        with pytest.raises(ConfigError, match="leaves nothing to train on"):
            Horizon.of(config, batches, {config.accum_grad or 1})
        return
    horizon = Horizon.of(config, batches, {config.accum_grad or 1})
    closed = inside = 0
    for epoch in range(1, epochs + 1):
        assert horizon.windows_before(epoch, 0) == closed
        for batch in range(1, horizon.batches + 1):
            inside += 1
            if inside == accum_grad or horizon.ends_window(epoch, batch):
                closed, inside = closed + 1, 0
                assert horizon.epoch_of(closed) == epoch
            assert horizon.windows_before(epoch, batch) == closed or horizon.carry
    assert closed == horizon.windows
    assert inside == 0  # nothing is lost at the end of a run
    assert horizon.batches * epochs + horizon.dropped * epochs == batches * epochs


@pytest.mark.parametrize("partial_window", ["apply", "carry", "drop"])
@pytest.mark.parametrize("step_per_update", [1, 2])
def test_the_run_does_what_the_plan_says(partial_window: str, step_per_update: int, tmp_path: Path) -> None:
    settings = [f"partial_window={partial_window}", f"{CONF}.step_per_update={step_per_update}"]
    member = plan_of(*settings).members["main"]
    assert call("train", write(tmp_path), *settings, "--out", tmp_path / "run").code == 0
    done = metrics(tmp_path / "run")
    assert len(done) == member.updates
    assert [(record["real_step"], record["lr"]) for record in done] == list(member.curve)


def test_milestones_by_hand() -> None:
    member = plan_of("ft_factor=0.5").members["main"]
    # Noam with a peak of 1e-2 at 3, halved: 1/3 of it at 1, sqrt(3/9) of it at 9
    assert member.peak == (3, pytest.approx(5e-3, rel=1e-12))
    assert member.curve[0] == (1, pytest.approx(5e-3 / 3, rel=1e-12))
    assert member.curve[-1] == (9, pytest.approx(5e-3 * 3**-0.5, rel=1e-12))
    assert len(member.curve) == member.updates == 9


@pytest.mark.parametrize("peak", [4000, 3997, 1, 50_000, 99_999])
def test_a_long_curve_is_sampled_but_has_its_ends_and_its_peak(peak: int) -> None:
    member = plan_of("num_epochs=1", "accum_grad=1", f"{CONF}.warmup_steps={peak}", batches=100_000).members[
        "main"
    ]
    assert member.updates == 100_000
    assert len(member.curve) <= 2003
    assert member.peak[0] == peak
    assert (member.curve[0][0], member.curve[-1][0]) == (1, 100_000)
    assert [step for step, _ in member.curve] == sorted({step for step, _ in member.curve})


def test_who_owns_what() -> None:
    rules = "param_groups: [{name: '*bias', weight_decay: 0, lr: 0.5}]"
    overrides = (
        "train_cfg.optim_sches={conf: {optim_type: AdamW, optim_conf: {lr: 1, weight_decay: 0.1}, "
        f"updated_modules: [first, norm], {rules}}}}}"
    )
    rows = plan_of(overrides).rows
    # first is 4 x 6 + 6, norm 6 + 6, second 6 + 1
    assert rows == (
        Row(owner="main", group="rest", tensors=2, parameters=30, lr=1.0, weight_decay=0.1),
        Row(owner="main", group="*bias", tensors=2, parameters=12, lr=0.5, weight_decay=0),
        Row(
            owner="nobody: will not train",
            group="second.weight, second.bias",
            tensors=2,
            parameters=7,
            lr=None,
            weight_decay=None,
        ),
    )


def test_frozen_parameters_have_a_row_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.run.tiny as tiny

    class HalfFrozen(tiny.Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.first.requires_grad_(False)
            self.norm.requires_grad_(False)

    monkeypatch.setattr(tiny, "Tiny", HalfFrozen)
    rows = plan_of().rows
    assert [(row.owner, row.group, row.parameters) for row in rows] == [
        ("main", "all", 7),
        ("frozen", "first.weight, first.bias, norm.weight, ...", 42),
    ]


def test_nothing_is_computed_where_the_model_can_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    import tests.run.tiny as tiny

    class Looks(tiny.Tiny):
        def __init__(self) -> None:
            super().__init__()
            seen.append(self.first.weight.device.type)

    monkeypatch.setattr(tiny, "Tiny", Looks)
    assert plan_of().notes == ("the last window of each epoch has 1 of 2 batches",)
    assert seen == ["meta"]


def test_a_model_that_cannot_be_built_without_numbers_is_built_with_a_line_that_says_so() -> None:
    plan = plan_of("train_cfg.model={type: tests.run.tiny.NotOnMeta}")
    assert plan.notes[0].startswith(
        "built on the CPU, because the model cannot be built on the meta device: Tensor.item()"
    )
    assert plan.rows[0].parameters == 49


NOTES: list[tuple[tuple[str, ...], str]] = [
    ((), "the last window of each epoch has 1 of 2 batches"),
    (("partial_window=carry",), "the last window of the run has 1 of 2 batches"),
    (("partial_window=drop",), "1 batches of each epoch are left out, because they fill no window"),
    (
        ("accum_grad=1", f"{CONF}.warmup_steps=99"),
        "main: the learning rate still rises at the end; is the warm-up longer than the run?",
    ),
    (
        ("accum_grad=1", f"{CONF}.step_per_update=99"),
        "main makes no update: the run has fewer windows than its step_per_update",
    ),
    (
        ("accum_grad=1", scheduled("tests.cases.HalvedWhenWorse()")),
        "main: the learning rate follows the held-out loss too; shown is what it is without it",
    ),
    (
        ("accum_grad=1", scheduled("tests.cases.HalvedWhenWorse()"), "data_cfg.valid=null"),
        "main: the learning rate follows the held-out loss, and data_cfg.valid names no data",
    ),
]


@pytest.mark.parametrize(("overrides", "note"), NOTES)
def test_what_is_worth_a_word_gets_one(overrides: tuple[str, ...], note: str) -> None:
    assert plan_of(*overrides).notes == (note,)


@pytest.mark.parametrize(
    "overrides",
    [("accum_grad=5", "num_epochs=4"), ("accum_grad=1",), ("partial_window=carry", "accum_grad=3")],
)
def test_what_is_as_expected_gets_none(overrides: tuple[str, ...]) -> None:
    assert plan_of(*overrides).notes == ()


def test_a_constant_learning_rate_does_not_rise() -> None:
    assert plan_of("accum_grad=1", scheduled("Constant()")).notes == ()


def test_planning_leaves_the_generators_and_the_schedule_of_the_run_alone() -> None:
    before: Any = torch.get_rng_state()
    plan_of()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_window_of_the_members_own_is_what_the_plan_counts() -> None:
    config = config_of("train_cfg.optim_sches.conf.accum_grad=5")
    plan = make_plan(config, batches=5)
    assert plan.horizon.windows == 3, "3 epochs of one window each; the experiment's accum_grad of 2 gives 9"
    assert plan.members["main"].updates == 3


# ---- samples per update ----


@pytest.mark.parametrize(
    ("overrides", "ranks", "tokens", "batches"),
    [
        (["accum_grad="], 2, None, 1),
        (["accum_grad=3"], 2, None, 3),
        (["accum_grad=", "samples_per_update=24"], 1, None, 6),
        (["accum_grad=", "samples_per_update=24"], 3, None, 2),
        (["accum_grad=", "tokens_per_update=2400"], 2, 100, 3),
    ],
)
def test_the_window_follows_from_samples_or_tokens(
    overrides: list[str], ranks: int, tokens: int | None, batches: int
) -> None:
    config = config_of(*overrides)  # 4 items per batch
    assert accumulation(config, ranks, tokens) == batches
    plan = make_plan(config, 5, ranks=ranks, tokens_per_item=tokens)
    assert (plan.accum_grad, plan.samples) == (batches, batches * 4 * ranks)


@pytest.mark.parametrize(
    ("overrides", "tokens", "says"),
    [
        (["samples_per_update=8"], None, "samples_per_update: accum_grad is given too; .* so give one"),
        (
            ["accum_grad=", "samples_per_update=30"],
            None,
            r"samples_per_update: 30 is no multiple of the 8 samples of a batch \(batch_size 4 x 2 ranks\); "
            "write 24 or 32$",
        ),
        (
            ["accum_grad=", "tokens_per_update=30"],
            None,
            "must say how many tokens an item has, .* tokens_per_item",
        ),
        (
            ["accum_grad=", "tokens_per_update=30"],
            0,
            "tokens_per_item; without one, write samples_per_update",
        ),
        (
            ["accum_grad=", "tokens_per_update=30"],
            10,
            r"30 is no multiple of the 80 tokens .* \(batch_size 4 x 2 ranks x 10 tokens\); write 80$",
        ),
    ],
)
def test_what_does_not_come_out_even_is_refused(overrides: list[str], tokens: int | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        accumulation(config_of(*overrides), 2, tokens)


@pytest.mark.parametrize("epochs", [10**9, 10**12, 2**60])
def test_a_run_of_any_length_is_planned_at_once(epochs: int) -> None:
    member = plan_of(f"num_epochs={epochs}", f"{CONF}.warmup_steps={epochs}").members["main"]
    assert member.updates == 3 * epochs
    at, lr = member.peak
    assert at == pytest.approx(epochs, rel=1e-15)  # beyond 2^53 neighbours have the same learning rate
    assert lr == pytest.approx(1e-2, rel=1e-6)
    assert len(member.curve) < 3000


def test_a_run_that_is_longer_than_can_be_counted_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^num_epochs: 9223372036854775807 epochs are 2767\d+ windows"):
        plan_of(f"num_epochs={2**63 - 1}")


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (
            'Custom("math.pow")',
            r'schedule: Custom\("math\.pow"\): at s = 1 it failed: pow expected 2 arguments',
        ),
        (
            "Product(Constant(1e200), Constant(1e200))",
            "schedule: Product: the factor at s = 1 must be a finite",
        ),
    ],
)
def test_a_curve_that_cannot_be_worked_out_is_told_with_its_place(schedule: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^train_cfg\.optim_sches: {says}"):
        plan_of(scheduled(schedule))
