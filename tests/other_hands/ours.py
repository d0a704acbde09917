"""The same training through the library: what is stepped here, other hands see as `optim.optimizer`."""

from __future__ import annotations

import copy

from torch import Tensor

from optimscheduler import OptimScheduler, OptimSchedulerDict
from tests.cases_models import stored
from tests.other_hands.sides import Side
from tests.other_hands.trainings import Member, Net

__all__ = ["Ours"]


class Ours(Side):
    """An OptimScheduler, or a dict of two."""

    optim: OptimScheduler | OptimSchedulerDict

    def build(self, model: Net) -> None:
        self.model = model
        members = [self._member(member, model) for member in self.training.members]
        self.optim = members[0]
        if len(members) > 1:
            self.optim = OptimSchedulerDict({str(i): member for i, member in enumerate(members)})
        self._look()
        self.pending = [0] * len(members)

    def _member(self, member: Member, model: Net) -> OptimScheduler:
        training, fall = self.training, self.training.falls_over
        return OptimScheduler(
            training.optim_type,
            training.optim_conf,
            model,
            optim_loss=member.loss,
            updated_modules=member.modules,
            use_amp=False,
            accum_grad=member.accum_grad,
            grad_clip=member.grad_clip,
            schedule=f"Linear(steps={fall}, end=0.1)" if fall else None,
            param_groups=self._rules(member),
            **({} if training.layout == "auto" else {"layout": training.layout}),
        )

    def _rules(self, member: Member) -> list[dict[str, object]]:
        """Those that match something there: the library refuses the others."""
        if member.modules is None:
            return list(self.training.rules)
        names = {"points", "side"} & set(member.modules)
        return [{**rule, "name": sorted(names)} if "name" in rule else rule for rule in self.training.rules]

    def _look(self) -> None:
        """What other hands are given."""
        several = isinstance(self.optim, OptimSchedulerDict)
        self.optimizers = [o.optimizer for o in (self.optim.values() if several else [self.optim])]

    def batch(self, x: Tensor, side: bool, *, last: bool = False, times: float = 1.0) -> None:
        with self.optim.forward(last=last):
            losses = self.model(x, side)
        reports = self.optim.step({name: loss * times for name, loss in losses.items()})
        several = reports.values() if isinstance(reports, dict) else [reports]
        self.pending = [
            0 if report.completes else count + 1 for count, report in zip(self.pending, several, strict=True)
        ]

    def flush(self) -> None:
        self.optim.flush()
        self.pending = [0] * len(self.optimizers)

    def copy(self) -> None:
        self.model, self.optim = copy.deepcopy((self.model, self.optim))
        self._look()
        self.forget()

    def resume(self) -> None:
        state, pending = stored(self.optim.state_dict()), self.pending
        self.build(copy.deepcopy(self.model))
        self.optim.load_state_dict(state)
        self._look()
        self.forget()
        self.pending = pending
