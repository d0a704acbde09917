"""R17: the torch optimizer that a configuration names, checked before it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from optimscheduler.checks import shown
from optimscheduler.errors import ConfigError
from optimscheduler.optimizer import build as optimizer_module
from optimscheduler.optimizer.build import build_optimizer, find_optimizer, may_be_fused, peak_lr
from optimscheduler.optimizer.keys import group_keys
from optimscheduler.parameters.group_rules import GroupRule
from optimscheduler.parameters.owned import own
from tests.cases_models import a_model
from tests.strangers import WithoutLr

DRIVABLE = [
    name
    for name, found in vars(torch.optim).items()
    if isinstance(found, type) and issubclass(found, Optimizer) and name not in ("Optimizer", "LBFGS")
]


class NoDefault(Optimizer):
    """Somebody's own, with an lr that has no default."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Nothing."""


class NoRate(Optimizer):
    """Somebody's own, without an lr."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Nothing."""


def build(optim_type: str, *, model: Any = None, **optim_conf: Any) -> Optimizer:
    return build_optimizer(find_optimizer(optim_type), optim_conf, own(model or a_model()))


@pytest.mark.parametrize("name", DRIVABLE)
def test_R17_every_optimizer_of_torch_goes_by_its_name_and_by_its_path(name: str) -> None:
    assert find_optimizer(name) is find_optimizer(f"torch.optim.{name}") is getattr(torch.optim, name)


def test_R17_a_dotted_path_reaches_ones_own() -> None:
    assert find_optimizer("tests.optimizer.test_build.NoDefault").__name__ == "NoDefault"


@pytest.mark.parametrize(
    ("optim_type", "message"),
    [
        ("Adm", r"^optim_type: there is no Optimizer 'Adm'. Did you mean 'Adam'\? Known: "),
        ("torch.optim.Adm", r"^optim_type: module 'torch.optim' has no 'Adm'. Did you mean 'Adam'\?"),
        ("torch.nn.Linear", r"^optim_type: 'torch.nn.Linear' is of type Linear, but needed here: Optimizer$"),
        (
            "torch.nn.functional.relu",
            r"^optim_type: 'torch.nn.functional.relu' is of type function, but needed here: Optimizer$",
        ),
        ("no.such.Thing", r"^optim_type: there is no module 'no'"),
        ("Optimizer", r"^optim_type: there is no Optimizer 'Optimizer'\."),
        ("torch.optim.Optimizer", r"^optim_type: Optimizer is the base class; name one of its subclasses$"),
        ("LBFGS", r"^optim_type: LBFGS\.step needs a closure that evaluates the model several times for one"),
        (None, r"^optim_type must be the name of an Optimizer, got None$"),
        (
            torch.nn.Linear,
            r"^optim_type must be the name of an Optimizer, got <class 'torch.nn.modules.linear.Linear'>$",
        ),
    ],
)
def test_R17_anything_else_is_refused_before_it_is_called(optim_type: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_optimizer(optim_type)


def test_R17_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"^optim_conf: Adam takes no 'beta'. Did you mean 'betas'\? Known: "
    ):
        build("Adam", beta=(0.9, 0.9))
    with pytest.raises(ConfigError, match=r"^optim_conf: Adam takes no 'params'\."):
        build("Adam", params=[])
    with pytest.raises(ConfigError, match=r"^optim_conf: Adam takes no 0\."):
        build_optimizer(torch.optim.Adam, {0: 1}, own(a_model()))  # type: ignore[dict-item]  # YAML may


@pytest.mark.parametrize(
    ("optim_type", "conf"),
    [
        ("Adam", {"betas": (1.5, 0.9)}),  # a ValueError of torch's
        ("Adam", {"betas": ("a", "b")}),  # a TypeError
        ("Adam", {"fused": True, "foreach": True}),  # a RuntimeError
        ("SGD", {"momentum": "much"}),
    ],
)
def test_R17_what_the_optimizer_says_against_its_values_is_passed_on(
    optim_type: str, conf: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=rf"^optim_conf: {optim_type} refuses this: "):
        build(optim_type, **conf)


@pytest.mark.parametrize(
    ("optim_type", "conf", "says"),
    [
        ("Adam", {"betas": 0.9}, "betas must be 2 numbers like (0.9, 0.999), got 0.9"),
        ("Adam", {"betas": [0.9]}, "betas must be 2 numbers like (0.9, 0.999), got [0.9]"),  # an IndexError
        ("Adam", {"betas": {}}, "betas must be 2 numbers like (0.9, 0.999), got {}"),  # a KeyError
        ("Adam", {"betas": [0.9, 0.9, 0.9]}, "betas must be 2 numbers like"),  # fails in the first update
        ("SGD", {"nesterov": 3, "momentum": 0.9}, "nesterov must be True or False, got 3"),
        ("Adam", {"eps": float("inf")}, "eps must be finite, got inf"),
        ("AdamW", {"weight_decay": float("inf")}, "weight_decay must be finite, got inf"),
    ],
)
def test_R17_what_torch_would_take_and_fail_with_later_is_refused(
    optim_type: str, conf: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(optim_type, **conf)
    assert str(caught.value).startswith(f"optim_conf: {says}")
    owned = own(a_model(), rules=[GroupRule(name=("*",), settings=conf)])
    with pytest.raises(ConfigError) as caught:
        build_optimizer(find_optimizer(optim_type), {"lr": 1.0}, owned)
    assert str(caught.value).startswith(f"param_groups: the rule '*': {says}")


def test_R03_the_base_is_lr_or_the_default_of_the_optimizer() -> None:
    assert peak_lr(torch.optim.Adam, {"lr": 2e-3}) == 2e-3
    assert peak_lr(torch.optim.Adam, {}) == 1e-3
    assert peak_lr(torch.optim.Adam, {"lr": torch.tensor(0.5)}) == 0.5
    assert isinstance(peak_lr(torch.optim.Adam, {"lr": 1}), float)


@pytest.mark.parametrize("lr", [0, 0.0, -1e-3, float("nan"), float("inf"), "1e-3", True, [1.0]])
def test_R03_a_base_that_is_no_positive_number_is_an_error(lr: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        peak_lr(torch.optim.Adam, {"lr": lr})
    assert str(caught.value) == f"optim_conf: lr must be a finite number > 0, got {shown(lr)}"


@pytest.mark.parametrize("owner", [NoDefault, NoRate])
def test_R03_a_base_that_nobody_gives_is_an_error(owner: type[Optimizer]) -> None:
    with pytest.raises(ConfigError) as caught:
        peak_lr(owner, {})
    assert str(caught.value) == f"optim_conf: {owner.__name__} needs an lr, which is missing"


def test_R46_the_optimizer_is_as_asked_for_and_may_be_fused_where_nothing_else_was() -> None:
    assert build("Adam").defaults["fused"] is None
    assert may_be_fused(build("Adam"))
    assert may_be_fused(build("SGD"))
    assert not may_be_fused(build("SGD", model=a_model().to("meta")))
    assert not may_be_fused(build("SGD", model=a_model().to(torch.bfloat16)))  # torch's kernel is wrong there
    assert not may_be_fused(build("RMSprop"))
    assert not may_be_fused(build("tests.optimizer.test_build.NoDefault", lr=0.1))
    for asked in ({"fused": False}, {"foreach": True}, {"foreach": False}, {"differentiable": True}):
        assert not may_be_fused(build("Adam", **asked))


def test_R46_a_kernel_that_this_torch_lacks_or_that_takes_no_scale_is_not_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch 2.11's Adagrad has one for the CPU alone, and does not say that it takes a scale."""

    def lacking(self: Any, *_: Any, **__: Any) -> None:
        raise RuntimeError("`fused=True` requires all the params to be floating point Tensors of supported")

    def silent(self: Any, *_: Any, **__: Any) -> None:
        self._step_supports_amp_scaling = False

    for step in (lacking, silent):
        with monkeypatch.context() as patched:
            patched.setattr(torch.optim.Adagrad, "step", step)
            optimizer_module._steps_fused.cache_clear()
            assert not may_be_fused(build("Adagrad"))
    optimizer_module._steps_fused.cache_clear()
    assert may_be_fused(build("Adagrad"))


def test_the_configuration_is_left_alone() -> None:
    conf = {"lr": torch.tensor(0.5)}
    optimizer = build_optimizer(torch.optim.Adam, conf, own(a_model()))
    assert set(conf) == {"lr"}
    assert isinstance(conf["lr"], torch.Tensor)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert isinstance(optimizer.param_groups[0]["lr"], float)


def test_R16_the_groups_come_in_order_with_their_settings() -> None:
    model = a_model()
    rules = [GroupRule(ndim="<2", settings={"weight_decay": 0.0, "lr": 0.5})]
    conf = {"lr": 0.1, "weight_decay": 0.01}
    optimizer = build_optimizer(torch.optim.AdamW, conf, own(model, rules=rules))
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [
        (0.1, 0.01, 2),  # two weight matrices
        (0.5, 0.0, 4),  # two biases, the norm's scale and shift
    ]


def test_R16_a_group_may_have_every_setting_but_the_implementation() -> None:
    assert group_keys(torch.optim.SGD) == [
        "lr",
        "momentum",
        "dampening",
        "weight_decay",
        "nesterov",
        "maximize",
    ]


def test_R17_a_class_without_a_learning_rate_to_drive_is_refused() -> None:
    owned = own(a_model())
    with pytest.raises(ConfigError, match=r"optim_type: WithoutLr keeps no lr in its groups"):
        build_optimizer(WithoutLr, {"lr": 0.1}, owned)
