"""Ask a classifier that has seen real digits only what the generator of a run has drawn.

    python examples/digits_gan/judge.py runs/digits_gan

200 digits are drawn, twenty of each. The classifier is a support vector machine, trained on four fifths of
the real images and tested on the rest. Exits with 1 unless it names all ten digits with a mean confidence
of 0.8 or more, and more than 95 % of the real images that it has not seen.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from digits_gan import CLASSES, Digits, DigitsGan
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from optimscheduler.run.checkpoint.store import Checkpoints

__all__ = ["Verdict", "judged", "newest"]

EACH = 20
CONFIDENCE = 0.8
ACCURACY = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the classifier says.

    Attributes:
        accuracy: share of real images, held out, that it names rightly.
        named: how many of the ten digits it names among those drawn.
        confidence: mean probability of what it names.
        wanted: share of the drawn digits that are named as what they were to be.
    """

    accuracy: float
    named: int
    confidence: float
    wanted: float

    @property
    def passed(self) -> bool:
        """Whether they can be taken for digits, by one who knows digits."""
        return self.accuracy > ACCURACY and self.named == CLASSES and self.confidence >= CONFIDENCE


def newest(run: Path) -> DigitsGan:
    """The model in the newest checkpoint of a run."""
    checkpoints = Checkpoints(run / "checkpoints")
    if not checkpoints.all():
        raise SystemExit(f"error: there is no checkpoint in {run}; train first")
    state = checkpoints.load(checkpoints.all()[-1])
    model = DigitsGan(**state["config"]["train_cfg"]["model"]["conf"])
    model.load_state_dict(state["model"])
    return model.eval()


def judged(model: DigitsGan, seed: int = 0) -> Verdict:
    """Draw 200 digits and have them judged."""
    real = Digits()
    images = np.stack([real[i]["image"].numpy() for i in range(len(real))])
    digits = np.array([int(real[i]["digit"]) for i in range(len(real))])
    known, unknown, names, hidden = train_test_split(images, digits, test_size=0.2, random_state=0)
    classifier = CalibratedClassifierCV(SVC(C=10), ensemble=False).fit(known, names)

    wanted = torch.arange(CLASSES).repeat_interleave(EACH)
    noise = torch.randn(len(wanted), model.noise, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        drawn = model.generate(wanted, noise).numpy()
    sure = classifier.predict_proba(drawn)
    named = sure.argmax(axis=1)
    return Verdict(
        accuracy=float((classifier.predict(unknown) == hidden).mean()),
        named=len(set(named.tolist())),
        confidence=float(sure.max(axis=1).mean()),
        wanted=float((named == wanted.numpy()).mean()),
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python judge.py RUN")
    verdict = judged(newest(Path(sys.argv[1])))
    print(f"the classifier names {verdict.accuracy:.1%} of real digits that it has not seen")
    print(f"of {CLASSES * EACH} drawn digits it names {verdict.named} of ten, with a mean confidence of")
    print(f"{verdict.confidence:.2f}; {verdict.wanted:.1%} are named as what they were to be")
    raise SystemExit(0 if verdict.passed else 1)
