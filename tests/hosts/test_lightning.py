"""R44: what Lightning does without a word, and the page warns of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts.lightning_modules import OF_LIGHTNING, fit, manual, trainer
from tests.hosts.row import LAYOUTS
from tests.hosts.trainings import encoder

pytest.importorskip("lightning", reason="pip install lightning")

pytestmark = [pytest.mark.xdist_group("hosts: lightning"), pytest.mark.filterwarnings(*OF_LIGHTNING)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("counts", [True, False])
def test_R44_model_checkpoint_saves_only_where_steps_are_counted(
    counts: bool, layout: str, tmp_path: Path
) -> None:
    """Should Lightning count by itself one day, the page can do without those lines."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    saving = ModelCheckpoint(dirpath=tmp_path, filename="last")
    its_trainer = trainer(max_epochs=1, enable_checkpointing=True, callbacks=[saving])
    fit(manual(encoder(), layout, counts=counts), its_trainer)
    assert its_trainer.global_step == (6 if counts else 0)
    assert (tmp_path / "last.ckpt").exists() is counts
