"""The main job's model and data: a small Transformer that learns to write Python's own documentation.

`PydocText` cuts the texts that every CPython carries in `pydoc_data.topics` into pieces, `CharLM` predicts
each character from those before it. Both need torch and nothing else, and nothing is downloaded.

>>> CharLM(vocabulary="abc", layers=1, width=8, heads=2, context=4).context
4
>>> PydocText(split="valid", context=128)[0]["inputs"].shape
torch.Size([128])
"""

from __future__ import annotations

import math
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from optimscheduler.checks import number, one_of, whole
from optimscheduler.errors import ConfigError

__all__ = ["CharLM", "PydocText", "pydoc_text", "symbols"]


def pydoc_text() -> str:
    """The text to learn: every topic of Python's help system, in the order of their names.

    Returns:
        About 465,000 characters in CPython 3.11; other versions differ a little.
    """
    return "".join(topics[name] for name in sorted(topics))


def symbols(text: str) -> str:
    r"""The vocabulary of a text: a character's place in it is the code that the model works with.

    >>> symbols("to be\n")
    '\n beot'
    """
    return "".join(sorted(set(text)))


class PydocText(Dataset[dict[str, Tensor]]):
    """Pieces of `pydoc_text()`, the last tenth of it held out.

    The held-out part is rounded up to a whole number of contexts. The train split is cut from what lies
    before it. The valid split tiles it: each of its characters is a target exactly once, the first of them
    predicted from the character just before. Both splits must have the same `context`, or they would
    disagree about where the held-out part begins.

    Args:
        split: `"train"` or `"valid"`.
        context: length T of a piece, characters, >= 1.
        stride: from the beginning of one training piece to that of the next, characters, >= 1; `None` is
            `context`, pieces side by side. The valid split takes no other.

    Raises:
        ConfigError: an argument is out of range, or the text is too short for one piece to train on.

    >>> train = PydocText(split="train", context=128, stride=64)
    >>> bool((train[0]["inputs"][64:] == train[1]["inputs"][:64]).all())
    True
    """

    def __init__(self, split: str, context: int = 128, stride: int | None = None) -> None:
        self.split = one_of("PydocText: split", split, ["train", "valid"])
        self.context = whole("PydocText: context", context, least=1, unit="characters")
        self.stride = self.context
        if stride is not None:
            self.stride = whole("PydocText: stride", stride, least=1, unit="characters")
        if self.split == "valid" and self.stride != self.context:
            raise ConfigError(
                f"PydocText: stride must be the context ({self.context}) in the valid split, which tiles the "
                f"held-out text, got {stride!r}; leave it out"
            )
        text = pydoc_text()
        code = {symbol: place for place, symbol in enumerate(symbols(text))}
        self._codes = torch.tensor([code[character] for character in self._part(text)])

    def _part(self, text: str) -> str:
        held_out = self.context * math.ceil(len(text) / (10 * self.context))
        first = len(text) - held_out
        if first <= self.context:
            raise ConfigError(
                f"PydocText: context must leave something to train on: of {len(text)} characters {held_out} "
                f"are held out, too many for a context of {self.context}"
            )
        return text[:first] if self.split == "train" else text[first - 1 :]

    def __len__(self) -> int:
        return (len(self._codes) - 1 - self.context) // self.stride + 1

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One piece and, for each of its characters, the next one.

        Args:
            index: 0 <= index < len(self).

        Returns:
            `{"inputs": int64 (T,), "targets": int64 (T,)}`, codes of `symbols(pydoc_text())`; views, not
            to be written to.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"piece {index} of {len(self)}")
        first = index * self.stride
        piece = self._codes[first : first + self.context + 1]
        return {"inputs": piece[:-1], "targets": piece[1:]}


class _Block(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + mlp(norm(x)); (B, T, W) in and out."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self._attention(self.norm_attention(x)))
        # The exact GELU: on CPU it is more than twice as fast as the tanh approximation.
        mlp = self.mlp_out(functional.gelu(self.mlp_in(self.norm_mlp(x))))
        out: Tensor = x + self.dropout(mlp)
        return out

    def _attention(self, x: Tensor) -> Tensor:
        split = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, heads, W / heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        dropout = self.dropout.p if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        out: Tensor = self.attention_out(mixed.transpose(1, 2).flatten(-2))
        return out


class CharLM(nn.Module):
    """A causal Transformer over characters: p(next character | those before it).

    Learned positions, pre-norm layers, GELU, a head of its own. With the defaults and the 103 symbols of
    CPython 3.11 it has 836,096 parameters.

    Args:
        vocabulary: the symbols, each once, in the order of their codes; `None` is `symbols(pydoc_text())`.
            No tensor is read, so the model builds on the meta device too.
        layers: number of Transformer layers, >= 1.
        width: W, size of the residual stream, a multiple of `heads`.
        heads: attention heads per layer, >= 1.
        context: the most characters that the model sees at once, >= 1.
        dropout: probability, 0 <= dropout < 1, on attention weights and both branches of a layer.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019 (pre-norm, and
    the scaled initialisation of the residual branches).
    """

    def __init__(
        self,
        vocabulary: str | None = None,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        context: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocabulary = _distinct(symbols(pydoc_text()) if vocabulary is None else vocabulary)
        self.context = whole("CharLM: context", context, least=1, unit="characters")
        depth = whole("CharLM: layers", layers, least=1)
        heads = whole("CharLM: heads", heads, least=1)
        width = whole("CharLM: width", width, least=1)
        if width % heads:
            raise ConfigError(f"CharLM: width must be a multiple of heads ({heads}), got {width}")
        dropout = number("CharLM: dropout", dropout, least=0, below=1)
        self.symbol = nn.Embedding(len(self.vocabulary), width)
        self.position = nn.Embedding(self.context, width)
        self.layers = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(self.vocabulary), bias=False)
        self._initialise(width)

    def _initialise(self, width: int) -> None:
        """Normal weights of deviation 1 / sqrt(W), biases 0.

        What a W x W layer returns is then as large as what it was given. At this width GPT-2's 0.02 holds
        attention back for hundreds of updates. The last weight of each of the 2 * layers branches is
        smaller, so that the sum of all branches does not grow with the depth.
        """
        wide, narrow = width**-0.5, width**-0.5 / math.sqrt(2 * len(self.layers))
        for name, weight in self.named_parameters():
            last = name.endswith(("attention_out.weight", "mlp_out.weight"))
            if weight.ndim == 2:
                nn.init.normal_(weight, std=narrow if last else wide)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def logits(self, inputs: Tensor) -> Tensor:
        """Scores of the next character at every place.

        Args:
            inputs: int64 (B, T), 1 <= T <= context.

        Returns:
            (B, T, number of symbols), float32 (or autocast's dtype); place t depends on inputs[:, : t + 1].

        Raises:
            ValueError: T is more than the context.
        """
        length = inputs.shape[1]
        if length > self.context:
            raise ValueError(f"CharLM: at most {self.context} characters at once, got {length}")
        x = self.symbol(inputs) + self.position.weight[:length]
        for layer in self.layers:
            x = layer(x)
        scores: Tensor = self.head(self.norm(x))
        return scores

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            batch: `{"inputs": int64 (B, T), "targets": int64 (B, T)}`.

        Returns:
            `"loss"`: mean cross entropy, nats per character; `"accuracy"`: share of characters that were
            the likeliest, without gradient. Both 0-d.
        """
        scores, targets = self.logits(batch["inputs"]).flatten(0, 1), batch["targets"].flatten()
        accuracy = (scores.detach().argmax(-1) == targets).float().mean()
        return {"loss": functional.cross_entropy(scores, targets), "accuracy": accuracy}

    @torch.no_grad()
    def write_sample(
        self, characters: int = 400, generator: torch.Generator | None = None, temperature: float = 0.8
    ) -> str:
        """A text that the model writes by itself, to read how far it has come.

        p(symbol) = softmax(logits / temperature). Neither torch's global random state nor the mode (train
        or eval) of the model is changed.

        Args:
            characters: length of the text, >= 1.
            generator: source of the randomness, on the CPU; `None` is a new one with seed 0.
            temperature: > 0; below 1 the text is safer than what was learned, above it bolder.

        Raises:
            ConfigError: an argument is out of range.
        """
        count = whole("write_sample: characters", characters, least=1)
        heat = number("write_sample: temperature", temperature, above=0)
        source = torch.Generator().manual_seed(0) if generator is None else generator
        was_training = self.training
        self.eval()
        try:
            codes = self._continue([max(0, self.vocabulary.find("\n"))], count, heat, source)
        finally:
            self.train(was_training)
        return "".join(self.vocabulary[code] for code in codes)

    def _continue(self, start: list[int], count: int, heat: float, source: torch.Generator) -> list[int]:
        codes = list(start)
        for _ in range(count):
            seen = torch.tensor([codes[-self.context :]], device=self.head.weight.device)
            chances = (self.logits(seen)[0, -1].float().cpu() / heat).softmax(-1)
            codes.append(int(torch.multinomial(chances, 1, generator=source)))
        return codes[len(start) :]


def _distinct(vocabulary: object) -> str:
    if isinstance(vocabulary, str) and len(set(vocabulary)) == len(vocabulary) > 1:
        return vocabulary
    raise ConfigError(f"CharLM: vocabulary must be a text of at least 2 distinct symbols, got {vocabulary!r}")
