"""Bad gradients, injected into short trainings that must go on as if nothing had been there."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.distributed.pool import Pool
from tests.faults.injected_run import Outcome, train
from tests.faults.injections import Injection, Setting, choose, pairs, possible_pairs
from tests.faults.row import Row

__all__ = ["drill"]

NEAR = 0.05  # of the clean run's loss


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Inject so many bad gradients, one into each training, and compare with the same one without.

    Args:
        count: injections.
        folder: what was injected, and what came of it, is written there.
        seed: of the choice.
    """
    start, chosen, trainer = time.monotonic(), choose(count, seed), _Trainer()
    try:
        found = [trainer.judge(injection) for injection in chosen]
    finally:
        trainer.pool.close()
    lines = [f"{ratio:.4f}\t{injection}" for injection, (ratio, _) in zip(chosen, found, strict=True)]
    (folder / "gradients.tsv").write_text("\n".join(["loss to clean run's\tinjection", *lines]) + "\n")
    covered, possible = set().union(*map(pairs, chosen)), possible_pairs(seed)
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(i.kind for i in chosen).items()))
    farthest = max((ratio for ratio, _ in found), key=lambda ratio: abs(ratio - 1))
    return Row(
        drill="NaN, inf and spike gradients, injected into short trainings",
        promise="no weight or moment ever non-finite, ranks identical, final loss within 5 % of clean",
        count=count,
        figures=f"{kinds}; final loss / clean run's: {farthest:.4f} at the farthest; {len(covered)} of "
        f"{len(possible)} pairs of conditions; {time.monotonic() - start:.0f} s",
        failures=tuple(failure for _, failures in found for failure in failures),
    )


@dataclass
class _Trainer:
    pool: Pool = field(default_factory=lambda: Pool(2))
    clean: dict[Setting, list[Outcome]] = field(default_factory=dict)

    def judge(self, injection: Injection) -> tuple[float, list[str]]:
        """The final loss in relation to that of the clean run, and what was wrong."""
        setting = injection.setting
        if setting not in self.clean:
            self.clean[setting] = self._trained(setting, None)
        clean, found = self.clean[setting], self._trained(setting, injection)
        ratio = max((f.after / c.after for f, c in zip(found, clean, strict=True)), key=lambda r: abs(r - 1))
        failures = [f"clean run, rank {r}: {line}" for r, c in enumerate(clean) for line in c.failures]
        failures += [f"rank {r}: {line}" for r, outcome in enumerate(found) for line in outcome.failures]
        if any(outcome.learnt != found[0].learnt for outcome in found):
            failures.append("the ranks differ")
        if not clean[0].after < 0.5 * clean[0].before:
            failures.append(
                f"clean run: the loss went from {clean[0].before:.4f} to {clean[0].after:.4f} only"
            )
        if not abs(ratio - 1) <= NEAR:
            failures.append(f"the loss is {ratio:.4f} times the clean run's")
        return ratio, [f"{injection}: {failure}" for failure in failures]

    def _trained(self, setting: Setting, injection: Injection | None) -> list[Outcome]:
        """Rank by rank."""
        try:
            outcomes: list[Outcome] = (
                [train(setting, injection)]
                if setting.wrap == "alone"
                else self.pool.run(train, setting, injection)
            )
        except Exception as error:  # of the library, or of a rank
            return [Outcome(failures=[f"{type(error).__name__}: {error}"])] * self.pool.world
        return outcomes
