"""R03, R14 to R17, R19, R26, R37 to R39: one OptimScheduler, as a user builds and reads it."""

from __future__ import annotations

import copy
import inspect
import logging
import math
from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler import ConfigError, ExponentDecayLr, Noamlr, OptimScheduler, ParameterError
from tests.cases_models import a_model, batches, mse, optim_of, spy, train, weights

DATA = batches(8)


# ---- the constructor ----


def test_R37_every_argument_of_the_origin_in_its_order_with_its_default() -> None:
    names = list(inspect.signature(OptimScheduler).parameters.values())[:12]
    assert [(p.name, p.default) for p in names] == [
        ("optim_type", inspect.Parameter.empty),
        ("optim_conf", inspect.Parameter.empty),
        ("model", inspect.Parameter.empty),
        ("distributed", False),
        ("optim_loss", None),
        ("updated_modules", None),
        ("step_per_update", 1),
        ("use_amp", True),
        ("accum_grad", 1),
        ("ft_factor", 1.0),
        ("grad_clip", 1.0),
        ("grad_norm_type", 2.0),
    ]


def test_R37_what_the_origins_subclasses_may_read() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    optim = OptimScheduler(
        "Adam",
        {"lr": 1},
        model,
        False,
        "nll",
        "encoder",
        2,
        "fp16",
        3,
        0.5,
        4,
        "inf",
    )
    assert optim.model is model
    assert isinstance(optim.optimizer, torch.optim.Adam)
    assert optim.scaler is not None
    assert optim.scaler.get_scale() == 65536.0
    assert (optim.distributed, optim.optim_loss, optim.updated_modules) == (False, "nll", ["encoder"])
    assert (optim.step_per_update, optim.accum_grad, optim.ft_factor) == (2, 3, 0.5)
    assert (optim.grad_clip, optim.grad_norm_type) == (4.0, math.inf)
    assert list(optim.owned.by_name) == ["encoder.weight", "encoder.bias"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optim_conf": [1]}, r"^optim_conf must be a mapping like \{'lr': 1e-3\}, got \[1\]$"),
        ({"optim_conf": {"lr": 0}}, r"^optim_conf: lr must be a finite number > 0, got 0$"),
        (
            {"optim_conf": {"lr": "1e-3"}},
            r"^optim_conf: lr must be a finite number > 0, got '1e-3'; write it without quotes$",
        ),
        ({"optim_type": "Adm"}, r"^optim_type: there is no Optimizer 'Adm'. Did you mean 'Adam'\?"),
        ({"optim_type": "LBFGS"}, r"^optim_type: LBFGS\.step needs a closure"),
        (
            {"distributed": True},
            r"^distributed: there is no process group\. Start with torchrun and call torch\.",
        ),
        ({"distributed": "yes"}, r"^distributed must be True or False, got 'yes'$"),
        ({"check_ranks": 1}, r"^check_ranks must be True or False, got 1$"),
        ({"optim_loss": 3}, r"^optim_loss must be the name of one loss, got 3$"),
        (
            {"updated_modules": 3},
            r"^updated_modules must be a name or a list of names, or mappings like .*, got 3$",
        ),
        (
            {"updated_modules": ""},
            r"^updated_modules must be a name or a list of names, or mappings like .*, got ''$",
        ),
        (
            {"updated_modules": ["0", 3]},
            r"^updated_modules must be a name or a list of names, or mappings like .*, got 3$",
        ),
        ({"exclude": None}, r"^exclude must be a name or a list of names, or mappings like .*, got None$"),
        ({"step_per_update": 0}, r"^step_per_update must be a whole number of real steps >= 1, got 0$"),
        ({"accum_grad": 0}, r"^accum_grad must be a whole number of batches >= 1, got 0$"),
        ({"accum_grad": 2.5}, r"^accum_grad must be a whole number of batches >= 1, got 2\.5$"),
        ({"ft_factor": 0}, r"^ft_factor must be a finite number > 0, got 0$"),
        ({"ft_factor": math.nan}, r"^ft_factor must be a finite number > 0, got nan$"),
        ({"grad_clip": 0}, r"^grad_clip must be a finite number > 0, got 0$"),
        (
            {"grad_norm_type": 0.5},
            r"^grad_norm_type must be a finite number >= 1, got 0\.5 \('inf' is allowed",
        ),
        ({"use_amp": "fp61"}, r"^use_amp: 'fp61' is not known. Did you mean 'fp16'\?"),
        ({"guard": -1}, r"^guard must be a finite number > 0, got -1$"),
        ({"max_skips": -1}, r"^max_skips must be a whole number of updates >= 0, got -1$"),
        (
            {"schedule": "Cosin(steps=3)"},
            r"^schedule: there is no Schedule or FeedbackSchedule 'Cosin'\. Did",
        ),
        ({"schedule": 3}, r"^schedule must be a schedule, like "),
        (
            {"param_groups": [{"ndim": "<2", "lrr": 0}]},
            r"^param_groups: unknown key 'lrr'. Did you mean 'lr'\?",
        ),
        ({"param_groups": ["norm"]}, r"^param_groups: a rule is a mapping like .*, got 'norm'$"),
    ],
)
def test_R17_R26_a_bad_setting_says_which_and_what_is_allowed(
    arguments: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {"optim_type": "Adam", "optim_conf": {"lr": 0.1}, "use_amp": False}
    with pytest.raises(ConfigError, match=message):
        OptimScheduler(model=a_model(), **{**good, **arguments})


@pytest.mark.parametrize("rules", [3, "norm", {"ndim": "<2"}])
def test_R16_param_groups_that_are_no_list_say_so(rules: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        optim_of(a_model(), param_groups=rules)
    assert str(caught.value) == (
        f"param_groups must be a list of rules like {{ndim: '<2', weight_decay: 0}}, got {rules!r}"
    )


@pytest.mark.parametrize("rules", [None, [], ()])
def test_R16_no_rules_are_one_group(rules: Any) -> None:
    optim = optim_of(a_model(), param_groups=rules)
    assert len(optim.optimizer.param_groups) == 1
    assert optim.state_dict()["config"]["param_groups"] == []


def test_R14_a_selection_without_a_match_is_an_error() -> None:
    with pytest.raises(ParameterError, match=r"^updated_modules: 'encoder' matches no parameter\. Known: "):
        optim_of(a_model(), updated_modules="encoder")
    with pytest.raises(ParameterError, match=r"^exclude: 'encoder' matches no parameter\."):
        optim_of(a_model(), exclude="encoder")
    with pytest.raises(ParameterError, match=r"^param_groups: the rule 'encoder' matches no parameter"):
        optim_of(a_model(), param_groups=[{"name": "encoder", "lr": 0.1}])


def test_R14_only_the_chosen_parameters_move() -> None:
    model = a_model()
    before = weights(model)
    optim = optim_of(model, updated_modules=["0", "3"], exclude="3.bias")
    train(optim, DATA[:2])
    moved = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    assert moved == {"0.weight", "0.bias", "3.weight"}


def test_R38_an_unknown_argument_names_class_and_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"^OptimScheduler takes no 'acum_grad'. Did you mean 'accum_grad'\?"
    ):
        optim_of(a_model(), acum_grad=2)
    with pytest.raises(
        ConfigError, match=r"^Noamlr takes no 'warmup'. Did you mean 'warmup_steps'\? Known: "
    ):
        Noamlr("Adam", {"lr": 0.1}, a_model(), use_amp=False, warmup=10)


def test_R38_a_missing_argument_of_the_hook_is_named() -> None:
    class Needy(OptimScheduler):
        def sche_init(self, total: int) -> None:
            """Nothing."""

    with pytest.raises(ConfigError, match=r"^Needy needs 'total', which is missing$"):
        Needy("Adam", {"lr": 0.1}, a_model(), use_amp=False)


def test_R38_a_schedule_and_an_overridden_update_lr_exclude_each_other() -> None:
    with pytest.raises(ConfigError) as caught:
        spy(schedule="Constant()")
    assert str(caught.value) == (
        "schedule: Spy computes its own learning rate in update_lr; leave schedule out, or use OptimScheduler"
    )


def test_the_schedule_of_a_class_that_computes_its_own_rate_is_none() -> None:
    assert spy().schedule is None


def test_the_arguments_are_left_alone() -> None:
    conf: dict[str, Any] = {"lr": 0.1, "betas": [0.9, 0.99]}
    rules = [{"ndim": "<2", "weight_decay": 0.0}]
    kept = copy.deepcopy((conf, rules))
    optim = OptimScheduler("AdamW", conf, a_model(), use_amp=False, param_groups=rules)
    train(optim, DATA[:2])
    assert (conf, rules) == kept


# ---- the step ----


@pytest.mark.parametrize("norm_type", [1, 2, 3.0, "inf"])
@pytest.mark.parametrize("grad_clip", [0.05, None])
def test_R19_the_norm_is_of_the_own_gradients_as_they_are_applied_before_clipping(
    norm_type: Any, grad_clip: float | None
) -> None:
    model, twin = a_model(), a_model()
    optim = optim_of(
        model, updated_modules=["0", "3"], accum_grad=2, grad_norm_type=norm_type, grad_clip=grad_clip
    )
    report = train(optim, DATA[:2])[1]
    (sum(mse(twin, batch) for batch in DATA[:2]) / 2).backward()  # type: ignore[union-attr]
    own = [p.grad for part in (twin[0], twin[3]) for p in part.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(own, float(norm_type)).item()
    assert report.grad_norm == pytest.approx(norm, rel=1e-6)  # float32
    assert norm > 0.05
    factor = 1.0 if grad_clip is None else grad_clip / (norm + 1e-6)
    with torch.no_grad():
        for part in (twin[0], twin[3]):
            for p in part.parameters():
                assert p.grad is not None
                p.sub_(0.1 * factor * p.grad)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)  # float32


def test_R25_sparse_gradients_are_trained_too() -> None:
    model, twin = nn.Embedding(6, 3, sparse=True), nn.Embedding(6, 3, sparse=True)
    twin.load_state_dict(model.state_dict())
    rows = torch.tensor([1, 1, 4])
    optim = OptimScheduler("SparseAdam", {"lr": 0.1}, model, use_amp=False, grad_clip=0.5, accum_grad=2)
    textbook = torch.optim.SparseAdam(twin.parameters(), lr=0.1)
    for _ in range(3):
        for _ in range(2):
            optim.step({"loss": model(rows).square().sum()})
            twin(rows).square().sum().backward()
        assert twin.weight.grad is not None
        dense = twin.weight.grad.to_dense() / 2
        twin.weight.grad = twin.weight.grad * (0.5 * min(1.0, 0.5 / (dense.norm().item() + 1e-6)))
        textbook.step()  # type: ignore[no-untyped-call]
        textbook.zero_grad()
    torch.testing.assert_close(model.weight, twin.weight, rtol=1e-5, atol=1e-6)  # float32


@pytest.mark.parametrize("use_amp", [False, "bf16", "fp16"])
def test_R26_validation_runs_in_the_same_precision(use_amp: Any) -> None:
    optim = optim_of(a_model(), use_amp=use_amp)
    with optim.autocast():
        validated = optim.model(DATA[0][0])
    with optim.forward():
        trained = optim.model(DATA[0][0])
    assert validated.dtype == trained.dtype
    assert optim.state_dict()["clock"]["batch"] == 0


def test_R26_true_on_a_cpu_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "optimscheduler"):
        optim = optim_of(a_model(), use_amp=True)
        train(optim, DATA[:3])
    assert len(caplog.messages) == 1
    assert optim.scaler is None


# ---- repr ----


def test_R39_repr() -> None:
    conf: dict[str, Any] = {"lr": 2e-3}
    assert repr(Noamlr("Adam", conf, a_model(), use_amp=False)) == (
        "Noamlr(optimizer=Adam, optim_loss=None, updated_modules=None, d_model=None, warmup_steps=4000)"
    )
    assert repr(optim_of(a_model(), optim_loss="nll", updated_modules="0", schedule="Cosine(steps=3)")) == (
        "OptimScheduler(optimizer=SGD, optim_loss=nll, updated_modules=['0'], schedule=Cosine(steps=3))"
    )
    assert repr(ExponentDecayLr("SGD", conf, a_model(), use_amp=False, decay_factor=0.5)) == (
        "ExponentDecayLr(optimizer=SGD, optim_loss=None, updated_modules=None, decay_factor=0.5)"
    )
    assert repr(spy()) == "Spy(optimizer=SGD, optim_loss=None, updated_modules=None)"
