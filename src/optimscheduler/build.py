"""Build the OptimSchedulers of a model from plain dicts, as they stand in a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from optimscheduler.api.optim_scheduler import NAME, OptimScheduler
from optimscheduler.api.optim_scheduler_dict import OptimSchedulerDict
from optimscheduler.errors import ConfigError, OptimSchedulerError, nearest
from optimscheduler.lookup import class_at
from optimscheduler.origin import ExponentDecayLr, Noamlr

__all__ = ["TYPES", "build_optim_sches"]

TYPES: Final[Mapping[str, type[OptimScheduler]]] = {
    "OptimScheduler": OptimScheduler,
    "exp.ExponentDecayLr": ExponentDecayLr,
    "noam.NoamLr": Noamlr,
    "noam.Noamlr": Noamlr,
}
"""Classes that a configuration names in short; others go by their dotted path."""

_SHARED = ("use_amp", "accum_grad", "ft_factor", "grad_clip", "grad_norm_type", "distributed")

_TOGETHER: Final = "clip_together"

_EXAMPLE: Final = {"optim_type": "Adam", "optim_conf": "{lr: 1e-3}"}  # what every conf needs


def build_optim_sches(model: nn.Module, optim_sches: Mapping[str, Any], **exp_cfg: Any) -> OptimSchedulerDict:
    """Build what `optim_sches` describes: one OptimScheduler, or several by name.

        type: noam.Noamlr               # a name in `TYPES` or a dotted path; by default OptimScheduler
        conf:
          optim_type: Adam
          optim_conf: {lr: 2e-3}
          warmup_steps: 4000

    or

        encoder_optim: {type: ..., conf: {updated_modules: encoder, ...}}
        decoder_optim: {type: ..., conf: {updated_modules: decoder, ...}}
        clip_together: true             # or a list of names; left out, each clips its own gradient

    Args:
        model: the model, on its device already.
        optim_sches: a mapping with `type` or `conf` is one OptimScheduler; otherwise its keys are names, but
            for `clip_together`.
        **exp_cfg: what the experiment says for all of them: use_amp, accum_grad, ft_factor, grad_clip,
            grad_norm_type, distributed. A `conf` may say otherwise for itself.

    Returns:
        A mapping; a single member is called `"main"`.

    Raises:
        ConfigError: with the place, for example `optim_sches.conf.warmup_steps`.
        ParameterError: a selection of parameters matches nothing, or a parameter has two owners.
    """
    for key in exp_cfg:
        if key not in _SHARED:
            raise ConfigError(f"build_optim_sches takes no {key!r:.80}. {nearest(key, _SHARED)}")
    if not isinstance(optim_sches, Mapping) or not optim_sches:
        raise ConfigError(
            f"optim_sches must be a mapping with 'type' and 'conf', or of names to such, "
            f"got {optim_sches!r:.80}"
        )
    if set(optim_sches) & {"type", "conf"}:
        return OptimSchedulerDict({NAME: _build_one(model, optim_sches, exp_cfg, "optim_sches")})
    members = {
        name: _build_one(model, each, exp_cfg, f"optim_sches.{name}")
        for name, each in optim_sches.items()
        if name != _TOGETHER
    }
    return OptimSchedulerDict(members, clip_together=optim_sches.get(_TOGETHER))


def _build_one(model: nn.Module, described: object, exp_cfg: Mapping[str, Any], where: str) -> OptimScheduler:
    if not isinstance(described, Mapping):
        raise ConfigError(f"{where} must be a mapping with 'type' and 'conf', got {described!r:.80}")
    for key in described:
        if key not in ("type", "conf"):
            raise ConfigError(f"{where}: unknown key {key!r:.80}. {nearest(key, ['type', 'conf'])}")
    conf = {} if described.get("conf") is None else described["conf"]
    if not isinstance(conf, Mapping):
        raise ConfigError(f"{where}.conf must be a mapping, got {conf!r:.80}")
    for key in conf:
        if not isinstance(key, str):
            raise ConfigError(f"{where}.conf: a key is the name of an argument, got {key!r:.80}")
    found: type[OptimScheduler] = class_at(
        described.get("type", "OptimScheduler"), OptimScheduler, f"{where}.type", TYPES
    )
    if missing := [key for key in _EXAMPLE if key not in conf]:
        written = ", ".join(f"{key}: {_EXAMPLE[key]}" for key in missing)
        raise ConfigError(
            f"{where}.conf: {found.__name__} needs {' and '.join(map(repr, missing))}, which "
            f"{'is' if len(missing) == 1 else 'are'} missing; write for example {{{written}}}"
        )
    for key in ("model", "self"):
        if key in conf:
            raise ConfigError(f"{where}.conf: {key!r} is given by the program, not by the configuration")
    try:
        return found(model=model, **{**exp_cfg, **conf})
    except OptimSchedulerError as error:
        raise type(error)(f"{where}.conf: {error}") from error
