"""What the plan of a configuration must say, worked out from plain values alone."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn

from optimscheduler.run.plan.member_plan import MemberPlan
from optimscheduler.run.plan.plan import Plan
from tests.faults.config_legal import found, members_of, optimizer_of

__all__ = ["differences"]

_SIMULATED: Final = 20_000  # batches; longer runs are calculated


def differences(values: Mapping[str, Any], plan: Plan, items: int) -> Iterator[str]:
    """A line for everything in a plan that is not what the values say."""
    data, members = values["data_cfg"], members_of(values)
    torch.manual_seed(0)
    count = len(found(data["train"]["type"])(**(data["train"].get("conf") or {})))
    yield from _differs("items", items, count)
    size, batches = int(data["batch_size"]), -(-count // int(data["batch_size"]))
    accum_grad = int(values.get("accum_grad") or (values.get("samples_per_update") or size) // size)
    sizes = {name: int(each["conf"].get("accum_grad", accum_grad)) for name, each in members.items()}
    yield from _differs("names", list(plan.members), list(members))
    yield from _differs("accum_grad", plan.accum_grad, accum_grad)
    yield from _differs("samples", plan.samples, accum_grad * size)
    windows = _windows(values, batches, sizes)
    yield from _differs("windows", plan.horizon.windows, windows[min(sizes, key=lambda name: sizes[name])])
    for name, described in members.items():
        yield from _of_plan(name, described["conf"], values, plan, windows[name], sizes[name])


def _of_plan(
    name: str, conf: Mapping[str, Any], values: Mapping[str, Any], plan: Plan, windows: int, size: int
) -> Iterator[str]:
    member, every = plan.members[name], int(conf.get("step_per_update", 1))
    yield from _differs(f"{name}: windows", member.run.steps, windows)
    yield from _differs(f"{name}: accum_grad", member.accum_grad, size)
    yield from _differs(f"{name}: updates", member.updates, windows // every)
    yield from _differs(f"{name}: loss", member.loss, conf.get("optim_loss") or "loss")
    kind = conf["optim_type"].rpartition(".")[2]
    if f"(optimizer={kind}," not in member.described:
        yield f"{name}: optimizer {kind} is not in {member.described:.80}"
    rows = [row for row in plan.rows if row.owner == name]
    rules = conf.get("param_groups") or []
    base = conf["optim_conf"].get("lr", inspect.signature(optimizer_of(conf)).parameters["lr"].default)
    if not any(rule.get("layer_decay") for rule in rules):
        allowed = {float(rule.get("lr", base)) for rule in rules} | {float(base)}
        if not {row.lr for row in rows} <= allowed:
            yield f"{name}: learning rates {[row.lr for row in rows]}, configured are {sorted(allowed)}"
    owned = _owned(values["train_cfg"]["model"], conf)
    if owned is not None:
        yield from _differs(f"{name}: parameters", sum(row.parameters for row in rows), owned)
    yield from _of_curve(name, conf, values, member, float(base))


def _of_curve(
    name: str, conf: Mapping[str, Any], values: Mapping[str, Any], member: MemberPlan, base: float
) -> Iterator[str]:
    """Where the curve is one of three simple ones."""
    lr = base * float(conf.get("ft_factor", values.get("ft_factor", 1.0)))
    kind = member.described.partition("(")[0]
    for step, rate in member.curve:
        match kind:
            case "OptimScheduler" if conf.get("schedule") is None:
                expected = lr
            case "Noamlr" if conf.get("d_model") is None:
                warm_up = int(conf.get("warmup_steps", 4000))
                expected = lr * min(step / warm_up, math.sqrt(warm_up / step))
            case _:
                return
        if not math.isclose(rate, expected, rel_tol=1e-9):  # another order of the same operations
            yield f"{name}: learning rate {rate} at {step}, expected {expected}"
            return


def _owned(described: Mapping[str, Any], conf: Mapping[str, Any]) -> int | None:
    """Parameters behind plain names; None where there are patterns."""
    named, left_out = conf.get("updated_modules"), conf.get("exclude", [])
    named, left_out = ([each] if isinstance(each, str) else each for each in (named, left_out))
    if any(sign in text for text in [*(named or []), *left_out] for sign in "*#"):
        return None
    try:
        with torch.device("meta"):
            model: nn.Module = found(described["type"])(**(described.get("conf") or {}))
    except Exception:
        return None  # one that cannot be built so; how else is the plan's affair

    def within(name: str, modules: list[str]) -> bool:
        return any(name == module or name.startswith(f"{module}.") for module in modules)

    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if (named is None or within(name, named)) and not within(name, left_out)
    )


def _windows(values: Mapping[str, Any], batches: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Windows of each member: counted batch by batch, or calculated where there are many."""
    epochs, steps = int(values["num_epochs"]), values.get("num_steps")
    partial = values.get("partial_window", "apply")
    if partial == "drop":
        batches -= batches % math.lcm(*sizes.values())
    limit = math.inf if steps is None else steps
    smallest = min(sizes.values())
    if epochs * batches > _SIMULATED and (limit == math.inf or len(set(sizes.values())) == 1):
        each = {
            name: -(-epochs * batches // size) if partial == "carry" else epochs * -(-batches // size)
            for name, size in sizes.items()
        }
        return {name: int(min(count, limit)) for name, count in each.items()}
    closed, filled = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
    least = next(name for name, size in sizes.items() if size == smallest)
    for batch in range(1, min(epochs * batches, 10 * _SIMULATED) + 1):
        over = batch == epochs * batches or (batch % batches == 0 and partial != "carry")
        for name, size in sizes.items():
            filled[name] += 1
            if over or filled[name] == size:
                closed[name], filled[name] = closed[name] + 1, 0
        if closed[least] >= limit:
            return {name: closed[name] + (filled[name] > 0) for name in sizes}
    return closed


def _differs(what: str, planned: object, expected: object) -> Iterator[str]:
    if planned != expected:
        yield f"{what}: {planned!r} in the plan, expected {expected!r}"
