"""The main job's model and data: what a run may rely on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from examples.char_lm import char_lm
from examples.char_lm.char_lm import CharLM, PydocText, pydoc_text, symbols
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from optimscheduler import errors

SYMBOLS_103 = "".join(chr(32 + code) for code in range(103))  # as many as CPython 3.11's text has


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def small(vocabulary: str = "\nabcdefg", **conf: object) -> CharLM:
    return CharLM(**{"vocabulary": vocabulary, "layers": 2, "width": 16, "heads": 2, "context": 8, **conf})


def characters(rows: int, length: int, kinds: int = 8) -> torch.Tensor:
    return torch.randint(kinds, (rows, length), generator=torch.Generator().manual_seed(1))


def distinct(length: int) -> str:
    """A text in which every character occurs once, so that its code is its place."""
    return "".join(map(chr, range(1000, 1000 + length)))


def split_of(text: str, split: str, context: int, stride: int | None = None) -> PydocText:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(char_lm, "pydoc_text", lambda: text)
        return PydocText(split, context, stride)


def joined(data: PydocText, key: str) -> list[int]:
    return [code for index in range(len(data)) for code in data[index][key].tolist()]


# The text


def test_the_text_is_every_topic_in_the_order_of_names_and_needs_no_download() -> None:
    assert pydoc_text().startswith('The "assert" statement')  # "assert" is the first topic
    assert len(pydoc_text()) > 300_000  # 464,970 in CPython 3.11


def test_symbols_are_distinct_sorted_and_cover_the_text() -> None:
    assert symbols("banana\n") == "\nabn"


def test_both_splits_speak_the_models_vocabulary() -> None:
    text, vocabulary = pydoc_text(), CharLM(layers=1).vocabulary
    spoken = {split: PydocText(split, 128)[0]["inputs"].tolist() for split in ("train", "valid")}
    held_out = 128 * math.ceil(len(text) / 1280)
    assert "".join(vocabulary[code] for code in spoken["train"]) == text[:128]
    before = len(text) - held_out - 1  # the character that the first held-out one is predicted from
    assert "".join(vocabulary[code] for code in spoken["valid"]) == text[before : before + 128]


# The splits


def test_a_piece_is_int64_and_its_targets_are_the_next_characters() -> None:
    piece = split_of(distinct(200), "train", 8)[3]
    assert piece["inputs"].dtype == piece["targets"].dtype == torch.int64
    assert piece["inputs"].tolist() == list(range(24, 32))  # the fourth piece of eight
    assert piece["targets"].tolist() == list(range(25, 33))


def test_the_held_out_tenth_is_rounded_up_to_whole_contexts() -> None:
    valid = split_of(distinct(1000), "valid", 16)
    assert len(valid) == 7  # a tenth is 100 characters, 6.25 contexts
    assert joined(valid, "targets") == list(range(888, 1000))
    assert valid[0]["inputs"][0] == 887  # from just before the held-out part


@given(length=st.integers(40, 400), context=st.integers(1, 12), stride=st.integers(1, 20))
def test_every_held_out_character_is_predicted_once_and_none_is_trained_on(
    length: int, context: int, stride: int
) -> None:
    text = distinct(length)
    train, valid = split_of(text, "train", context, stride), split_of(text, "valid", context)
    held_out = joined(valid, "targets")
    assert held_out == list(range(held_out[0], length))  # each once, up to the end of the text
    assert length / 10 <= len(held_out) < length / 10 + context
    assert max(joined(train, "inputs") + joined(train, "targets")) < held_out[0]


@given(stride=st.integers(1, 8))
def test_training_pieces_start_every_stride_and_use_all_that_fits(stride: int) -> None:
    train = split_of(distinct(100), "train", 8, stride)  # 16 of 100 are held out: places 0 to 83
    starts = [int(train[index]["inputs"][0]) for index in range(len(train))]
    assert starts == list(range(0, 84 - 8, stride))  # a piece needs 9 places: 8 inputs and the last target


def test_stride_is_the_context_unless_given() -> None:
    assert PydocText("train", 128).stride == 128
    assert len(PydocText("train", 128, 64)) >= 2 * len(PydocText("train", 128)) - 1


def test_a_piece_beyond_the_end_is_an_index_error_so_that_loops_end() -> None:
    train = split_of(distinct(100), "train", 8)
    assert len(list(train)) == len(train)
    with pytest.raises(IndexError, match=f"piece {len(train)} of {len(train)}"):
        train[len(train)]


def test_a_loader_makes_batches_that_the_model_takes() -> None:
    batch = next(iter(DataLoader(PydocText("valid", 32), batch_size=5)))
    assert batch["inputs"].shape == batch["targets"].shape == (5, 32)
    assert CharLM(layers=1, context=32)(batch)["loss"].shape == ()


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"split": "test"}, r"PydocText: split: 'test' is not known. .*Known: train, valid"),
        ({"split": "train", "context": 0}, "PydocText: context must be a whole number of characters >= 1"),
        ({"split": "train", "context": 2.5}, "PydocText: context must be a whole number .* got 2.5"),
        ({"split": "train", "stride": 0}, "PydocText: stride must be a whole number of characters >= 1"),
        (
            {"split": "valid", "stride": 64},
            r"stride must be the context \(128\) in the valid split, .* got 64",
        ),
        ({"split": "train", "context": 10**6}, "context must leave something to train on"),
    ],
)
def test_wrong_data_settings_are_refused(conf: dict[str, object], message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        PydocText(**conf)  # type: ignore[arg-type]


def test_the_valid_split_takes_the_context_as_its_stride() -> None:
    assert len(PydocText("valid", 128, 128)) == len(PydocText("valid", 128))


# The model


def test_the_defaults_have_836096_parameters() -> None:
    layer = 2 * 256 + (128 * 384 + 384) + (128 * 128 + 128) + (128 * 512 + 512) + (512 * 128 + 128)
    by_hand = 103 * 128 + 128 * 128 + 4 * layer + 256 + 128 * 103  # symbols, positions, layers, norm, head
    assert by_hand == 836_096
    assert sum(p.numel() for p in CharLM(vocabulary=SYMBOLS_103).parameters()) == by_hand


def test_it_builds_and_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = CharLM()
        codes = torch.zeros(2, 128, dtype=torch.int64)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model({"inputs": codes, "targets": codes})["loss"].is_meta


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.nn.utils.parameters_to_vector(small().parameters())

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_an_untrained_model_scores_as_badly_as_random_scores() -> None:
    model, codes = CharLM(vocabulary=SYMBOLS_103, layers=2), characters(8, 128, kinds=103)
    loss = model({"inputs": codes, "targets": codes.flip(0)})["loss"].item()
    # Scores of variance 1 cost log E[exp(score)] = 1/2 more than equal ones; 0.2 for the luck of 1,024 draws.
    assert loss == pytest.approx(math.log(103) + 0.5, abs=0.2)


@pytest.mark.parametrize("length", [1, 5, 8])
def test_scores_have_one_row_per_character_and_one_column_per_symbol(length: int) -> None:
    assert small().logits(characters(3, length)).shape == (3, length, 8)


@pytest.mark.parametrize("place", range(8))
def test_a_character_changes_no_earlier_score_and_its_own(place: int) -> None:
    model, before = small(), characters(3, 8)
    after = before.clone()
    after[:, place] = (after[:, place] + 1) % 8
    old, new = model.logits(before), model.logits(after)
    assert torch.equal(old[:, :place], new[:, :place])
    for row in range(3):
        assert not torch.equal(old[row, place], new[row, place])


def test_a_character_changes_later_scores() -> None:
    model, before = small(), characters(1, 8)
    after = before.clone()
    after[0, 0] = (after[0, 0] + 1) % 8
    assert not torch.equal(model.logits(before)[:, 7], model.logits(after)[:, 7])  # only attention reaches it


def test_equal_characters_in_other_places_score_differently() -> None:
    scores = small().logits(torch.full((1, 8), 3))
    assert not torch.allclose(scores[0, 0], scores[0, 7], rtol=0, atol=1e-6)


def test_loss_is_the_mean_over_characters_and_accuracy_the_share_of_hits() -> None:
    model, inputs, targets = small(), characters(3, 8), characters(3, 8).flip(0)
    out = model({"inputs": inputs, "targets": targets})
    chances = model.logits(inputs).detach().softmax(-1)
    told = [
        (-math.log(chances[b, t, targets[b, t]]), int(chances[b, t].argmax() == targets[b, t]))
        for b in range(3)
        for t in range(8)
    ]
    assert out["loss"].item() == pytest.approx(sum(nats for nats, _ in told) / 24, rel=1e-5)  # float32 sums
    assert out["accuracy"].item() == pytest.approx(sum(hit for _, hit in told) / 24, rel=1e-6)
    assert 0 < sum(hit for _, hit in told) < 24  # or the line above would pass for a constant
    assert out["loss"].requires_grad
    assert not out["accuracy"].requires_grad


def test_every_parameter_receives_a_gradient() -> None:
    model, codes = small(), characters(4, 8)
    model({"inputs": codes, "targets": codes})["loss"].backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_it_learns_a_rhyme_by_heart() -> None:
    rhyme = torch.tensor([[0, 1, 2, 1, 3, 1, 4, 1, 2]])
    batch = {"inputs": rhyme[:, :-1], "targets": rhyme[:, 1:]}  # after 1 the place decides
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()
    assert model(batch)["loss"].item() < 0.1
    assert model(batch)["accuracy"].item() == 1.0


def test_dropout_acts_in_training_only() -> None:
    model, codes = small(dropout=0.5), characters(2, 8)
    assert not torch.equal(model.logits(codes), model.logits(codes))
    model.eval()
    assert torch.equal(model.logits(codes), model.logits(codes))


def test_dropout_acts_on_attention_weights_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, codes = small(dropout=0.5), characters(2, 8)
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda _, x: x)  # leaves that of attention alone
    assert not torch.equal(model.logits(codes), model.logits(codes))


def test_without_dropout_training_and_eval_score_alike() -> None:
    model, codes = small(), characters(2, 8)
    trained = model.logits(codes)
    assert torch.equal(trained, model.eval().logits(codes))


def test_more_characters_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="CharLM: at most 8 characters at once, got 9"):
        small().logits(characters(1, 9))


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"vocabulary": "aba"}, "CharLM: vocabulary must be .* distinct symbols, got 'aba'"),
        ({"vocabulary": "a"}, "vocabulary must be a text of at least 2"),
        ({"vocabulary": 103}, "vocabulary must be a text .* got 103"),
        ({"layers": 0}, "CharLM: layers must be a whole number >= 1, got 0"),
        ({"width": 0}, "CharLM: width must be a whole number >= 1, got 0"),
        ({"width": 18, "heads": 4}, r"CharLM: width must be a multiple of heads \(4\), got 18"),
        ({"heads": "4"}, "CharLM: heads must be a whole number >= 1, got '4'; write it without quotes"),
        ({"context": 0}, "CharLM: context must be a whole number of characters >= 1, got 0"),
        ({"dropout": 1.0}, "CharLM: dropout must be a finite number >= 0 and < 1, got 1.0"),
    ],
)
def test_wrong_model_settings_are_refused(conf: dict[str, object], message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        small(**conf)


# The sample


def test_a_sample_has_its_length_and_the_models_symbols() -> None:
    text = small().write_sample(30)  # longer than the context of 8
    assert len(text) == 30
    assert set(text) <= set("\nabcdefg")


def test_a_sample_is_a_function_of_its_generator() -> None:
    model = small()

    def sample(seed: int) -> str:
        return model.write_sample(40, torch.Generator().manual_seed(seed))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert model.write_sample(40) == model.write_sample(40, None) == sample(0)


def test_a_sample_leaves_torchs_random_state_and_the_gradients_alone() -> None:
    model, before = small(dropout=0.5), torch.get_rng_state()
    model.write_sample(20)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_a_sample_is_written_in_eval_mode_which_is_put_back(training: bool) -> None:
    model = small(dropout=0.5)
    plain = small()
    plain.load_state_dict(model.state_dict())
    model.train(training)
    assert model.write_sample(20) == plain.write_sample(20)
    assert model.training is training
    assert model.layers.training is training


def test_a_sample_that_fails_puts_the_mode_back_too() -> None:
    model = small()
    with pytest.raises(RuntimeError):
        model.write_sample(3, torch.Generator(device="meta"))
    assert model.training


def test_a_sample_starts_as_if_after_a_line_end_or_else_after_the_first_symbol() -> None:
    for vocabulary, start in [("ab\nc", 2), ("abc", 0)]:
        model = small(vocabulary)
        likeliest = model.logits(torch.tensor([[start]]))[0, 0].argmax()
        assert model.write_sample(1, temperature=1e-6) == vocabulary[likeliest]


def test_a_cold_sample_is_the_likeliest_text_given_all_that_fits_the_context() -> None:
    model, codes = small(), [0]  # the line end
    for _ in range(12):  # beyond the context of 8
        codes.append(int(model.logits(torch.tensor([codes[-8:]]))[0, -1].argmax()))
    likeliest = "".join("\nabcdefg"[code] for code in codes[1:])
    assert len(set(likeliest)) > 1  # or the context would not matter
    for seed in (1, 2):
        assert model.write_sample(12, torch.Generator().manual_seed(seed), temperature=1e-6) == likeliest


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"characters": 0}, "write_sample: characters must be a whole number >= 1, got 0"),
        ({"temperature": 0}, "write_sample: temperature must be a finite number > 0, got 0"),
    ],
)
def test_wrong_sample_settings_are_refused(conf: dict[str, object], message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        small().write_sample(**conf)  # type: ignore[arg-type]
