"""Numbers read aloud: the names, the split, the shapes, and that both sides learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from examples.encoder_decoder.encoder_decoder import LETTERS, SYMBOLS, Numbers, Reader, spoken

from tests.run.command import call, last_weights, metrics

YAML = Path(__file__).parents[2] / "examples" / "encoder_decoder" / "train.yaml"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (505, "five hundred five"),
        (3000, "three thousand"),
        (7018, "seven thousand eighteen"),
        (8373, "eight thousand three hundred seventy-three"),
    ],
)
def test_names(number: int, name: str) -> None:
    assert spoken(number) == name


def test_every_number_is_in_one_split() -> None:
    seen = [
        tuple(data[i]["digits"].tolist())
        for data in map(Numbers, ("train", "valid"))
        for i in range(len(data))
    ]
    assert len(set(seen)) == len(seen) == 10_000
    assert len(Numbers("valid")) == 1000
    assert max(len(spoken(number)) for number in range(10_000)) < LETTERS, "each name has an end"


def test_items_are_digits_and_letters() -> None:
    item = Numbers("train")[7]
    digits, letters = item["digits"].tolist(), item["letters"].tolist()
    assert digits == [0, 0, 0, 8]
    assert "".join(SYMBOLS[code] for code in letters).rstrip("\0") == "eight"


def test_the_decoder_sees_what_was_before_and_not_what_comes() -> None:
    torch.manual_seed(0)
    model = Reader(width=8)
    batch = {"digits": torch.tensor([[1, 2, 3, 4]]), "letters": Numbers("train")[1234]["letters"][None]}
    states, memory = model.encoder(batch["digits"])
    scores, _ = model.decoder(batch["letters"], states, memory)
    changed = batch["letters"].clone()
    changed[0, 10:] = 5
    assert torch.equal(scores[:, :10], model.decoder(changed, states, memory)[0][:, :10])
    assert model(batch)["loss"].shape == ()


def test_it_writes_numbers_and_their_names() -> None:
    lines = Reader(width=8).write_sample(generator=torch.Generator().manual_seed(0)).split("\n")
    assert len(lines) == 5
    assert all(line[:4].strip().isdigit() for line in lines)


@pytest.mark.slow
def test_both_sides_learn_at_rates_and_intervals_of_their_own(tmp_path: Path) -> None:
    said = call("train", YAML, "num_epochs=2", "threads=1", "--out", tmp_path / "run")
    assert said.code == 0
    assert "  encoder_optim        .U   loss 'loss'" in said.out
    assert "backward   one of 'loss' for encoder_optim and decoder_optim" in said.out
    records = metrics(tmp_path / "run")
    steps = {
        m: [r["real_step"] for r in records if r["member"] == m] for m in ("encoder_optim", "decoder_optim")
    }
    assert steps == {"encoder_optim": list(range(2, 283, 2)), "decoder_optim": list(range(1, 283))}
    (first, second) = metrics(tmp_path / "run", "validation.jsonl")
    assert second["loss"] < first["loss"] < 1.0


@pytest.mark.long
def test_the_whole_run_reads_numbers_that_it_has_never_seen(tmp_path: Path) -> None:
    assert call("train", YAML, "threads=1", "--out", tmp_path / "run").code == 0
    assert metrics(tmp_path / "run", "validation.jsonl")[-1]["names_right"] >= 0.99  # 0.997 was seen
    model, data = Reader(), Numbers("valid")
    model.load_state_dict(last_weights(tmp_path / "run"))
    digits = torch.stack([data[index]["digits"] for index in range(len(data))])
    with torch.no_grad():
        written = model._read(digits)  # from its own letters, not from the true ones
    numbers = [int("".join(map(str, row))) for row in digits.tolist()]
    right = sum(name == spoken(number) for number, name in zip(numbers, written, strict=True))
    assert right / len(numbers) >= 0.98  # 0.997 was seen
