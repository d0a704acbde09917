"""Numbers read aloud: an encoder reads the digits, a decoder writes the words, letter by letter.

`Numbers` are 0 to 9,999 with their English names; `Reader` is a GRU for each side, with attention between
them. One loss trains both; `train.yaml` gives each side an OptimScheduler of its own.

>>> spoken(1984)
'one thousand nine hundred eighty-four'
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from optimscheduler.checks import one_of

__all__ = ["Numbers", "Reader", "spoken"]

# fmt: off
_ONES: Final = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS: Final = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on

COUNT, LETTERS = 10_000, 44
SYMBOLS: Final = "\0 -abcdefghijklmnopqrstuvwxyz"  # the first ends a name, and fills up what is shorter


def spoken(number: int) -> str:
    """The English name of a number, 0 <= number < 10,000."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return _TENS[tens] + (f"-{_ONES[rest]}" if rest else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    front, rest = divmod(number, size)
    return f"{_ONES[front]} {name}" + (f" {spoken(rest)}" if rest else "")


class Numbers(Dataset[dict[str, Tensor]]):
    """Every number with its name; those whose digits add up to a multiple of ten are held out.

    Args:
        split: `"train"` or `"valid"`.

    Raises:
        ConfigError: another split.
    """

    def __init__(self, split: str) -> None:
        held_out = one_of("Numbers: split", split, ["train", "valid"]) == "valid"
        numbers = [n for n in range(COUNT) if (sum(map(int, str(n))) % 10 == 0) == held_out]
        self._digits = torch.tensor([[int(digit) for digit in f"{number:04}"] for number in numbers])
        names = [spoken(number).ljust(LETTERS, "\0") for number in numbers]
        self._letters = torch.tensor([[SYMBOLS.index(letter) for letter in name] for name in names])

    def __len__(self) -> int:
        return len(self._digits)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`{"digits": int64 (4,), "letters": int64 (44,)}`, the latter filled up with 0."""
        return {"digits": self._digits[index], "letters": self._letters[index]}


class _Decoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(len(SYMBOLS), width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(2 * width, len(SYMBOLS))

    def forward(self, before: Tensor, states: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, T, symbols) of the letters after `before` (B, T), and the last state."""
        hidden, last = self.gru(self.letter(before), memory)
        mixed = functional.scaled_dot_product_attention(hidden, states, states)
        return self.out(torch.cat([hidden, mixed], dim=-1)), last


class _Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.digit = nn.Embedding(10, width)
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, digits: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, 4, width), and the last one (1, B, width)."""
        states, last = self.gru(self.digit(digits))
        return states, last


class Reader(nn.Module):
    """Digits in, letters out.

    Args:
        width: of both sides.
    """

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.encoder = _Encoder(width)
        self.decoder = _Decoder(width)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            batch: `{"digits": int64 (B, 4), "letters": int64 (B, 44)}`.

        Returns:
            `"loss"`: mean cross entropy, nats per letter; `"names_right"`: share of the names whose every
            letter was the likeliest after the true ones before it. Both 0-d.
        """
        letters = batch["letters"]
        before = functional.pad(letters[:, :-1], (1, 0))
        scores, _ = self.decoder(before, *self.encoder(batch["digits"]))
        right = (scores.argmax(dim=-1) == letters).all(dim=1).float().mean()
        return {
            "loss": functional.cross_entropy(scores.flatten(0, 1), letters.flatten()),
            "names_right": right,
        }

    @torch.no_grad()
    def write_sample(self, *, generator: torch.Generator) -> str:
        """Five numbers of the held-out tenth, read aloud."""
        data = Numbers("valid")
        device = next(self.parameters()).device
        chosen = torch.randint(len(data), (5,), generator=generator).tolist()
        digits = torch.stack([data[index]["digits"] for index in chosen])
        lines = zip(digits.tolist(), self._read(digits.to(device)), strict=True)
        return "\n".join(
            f"{''.join(map(str, number)).lstrip('0') or '0':>4}  {name}" for number, name in lines
        )

    def _read(self, digits: Tensor) -> list[str]:
        """The likeliest letter, one after the other."""
        states, memory = self.encoder(digits)
        letter = torch.zeros(len(digits), 1, dtype=torch.int64, device=digits.device)
        written = []
        for _ in range(LETTERS):
            scores, memory = self.decoder(letter, states, memory)
            letter = scores.argmax(dim=-1)
            written.append(letter)
        codes = torch.cat(written, dim=1).tolist()
        return ["".join(SYMBOLS[code] for code in row).partition("\0")[0] for row in codes]
