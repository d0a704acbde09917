"""Parameters side by side in one tensor."""

from __future__ import annotations

import io
import weakref

import pytest
import torch
from torch import Tensor, nn

from optimscheduler.gradients.buffer import Buffer

SHAPES = [(3, 5), (7,), (1,), (2, 3, 4), (), (16,)]


def some(dtype: torch.dtype = torch.float32, grad: bool = True) -> list[nn.Parameter]:
    """Of many shapes, each element another number, the gradients their squares."""
    parameters, start = [], 1
    for shape in SHAPES:
        count = int(torch.Size(shape).numel())
        parameters.append(nn.Parameter(torch.arange(start, start + count).to(dtype).reshape(shape)))
        start += count
    for p in parameters if grad else ():
        p.grad = p.detach().square()
    return parameters


def gaps(buffer: Buffer, row: Tensor) -> Tensor:
    """The elements of a row that are no parameter's."""
    own = torch.zeros_like(row)
    for view in buffer.beside(own):
        view.fill_(1)
    return row.detach()[own == 0]


@torch.no_grad()
def gathered(parameters: list[nn.Parameter]) -> Buffer:
    buffer = Buffer.around(parameters)
    assert buffer.gather() == []
    return buffer


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_parameter_is_aligned_and_keeps_its_values(dtype: torch.dtype) -> None:
    parameters, expected = some(dtype), [p.detach().clone() for p in some(dtype)]
    buffer = Buffer.around(parameters)
    start = buffer.leaf.data_ptr()
    assert start % 64 == 0
    assert all((p.data_ptr() - start) % 16 == 0 for p in parameters)
    places = [p.data_ptr() for p in buffer.parameters]
    assert sorted(places) == places
    assert places[-1] + buffer.parameters[-1].nbytes <= start + buffer.leaf.nbytes
    for p, was in zip(parameters, expected, strict=True):
        assert torch.equal(p, was)
        assert p.is_leaf
        assert p.requires_grad
        assert p.stride() == was.stride()
    assert buffer.leaf.dim() == 1
    assert buffer.is_whole()


def test_parameters_do_not_overlap_and_what_is_written_to_the_leaf_is_theirs() -> None:
    parameters = some()
    buffer = Buffer.around(parameters)
    with torch.no_grad():
        for i, view in enumerate(buffer.beside(buffer.leaf), start=1):
            view.fill_(i)
    assert [set(p.detach().flatten().tolist()) for p in parameters] == [
        {float(1 + [id(q) for q in buffer.parameters].index(id(p)))} for p in parameters
    ]
    with torch.no_grad():
        parameters[2].fill_(9)
    assert (buffer.leaf == 9).sum() == 1


def test_the_gaps_are_zeros_and_stay_so() -> None:
    buffer = gathered(some())
    assert len(gaps(buffer, buffer.leaf)) > 0
    assert not gaps(buffer, buffer.leaf).any()
    assert not gaps(buffer, buffer.gradient).any()
    optimizer = torch.optim.AdamW([buffer.leaf], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.step()
    assert not gaps(buffer, buffer.leaf).any()
    assert all(not gaps(buffer, v).any() for v in optimizer.state[buffer.leaf].values() if v.dim())


def test_gathered_gradients_lie_as_the_parameters_do_and_are_copies() -> None:
    parameters = some()
    buffer = gathered(parameters)
    own = [p.grad for p in buffer.parameters]
    assert buffer.leaf.grad is buffer.gradient
    for p, gradient, view in zip(buffer.parameters, own, buffer.beside(buffer.gradient), strict=True):
        assert p.grad is gradient
        assert torch.equal(view, p.detach().square())
        assert gradient is not None
        gradient.zero_()
        assert torch.equal(view, p.detach().square())


def test_gathering_again_takes_the_new_gradients() -> None:
    parameters = some()
    buffer = gathered(parameters)
    for p in parameters:
        p.grad = torch.full_like(p, 2.0)
    with torch.no_grad():
        assert buffer.gather() == []
    assert buffer.gradient.sum() == 2 * sum(p.numel() for p in parameters)
    assert not gaps(buffer, buffer.gradient).any()


@pytest.mark.parametrize("which", [[0], [1, 4], [5], list(range(6))])
def test_parameters_without_a_gradient_are_told(which: list[int]) -> None:
    parameters = some()
    buffer = gathered(parameters)
    for i, p in enumerate(parameters):
        p.grad = None if i in which else torch.zeros_like(p)
    with torch.no_grad():
        unfit = buffer.gather()
    assert {id(p) for p in unfit} == {id(parameters[i]) for i in which}


def test_a_sparse_gradient_is_told() -> None:
    parameters = some()
    buffer = gathered(parameters)
    parameters[0].grad = torch.sparse_coo_tensor(
        torch.tensor([[1]]), torch.ones(1, 5), (3, 5), check_invariants=True
    )
    with torch.no_grad():
        assert [id(p) for p in buffer.gather()] == [id(parameters[0])]


def test_a_gradient_with_a_graph_is_copied_without_it() -> None:
    parameters = some()
    x = torch.ones((), requires_grad=True)
    for p in parameters:
        p.grad = torch.ones_like(p) * x
    buffer = gathered(parameters)
    assert not buffer.gradient.requires_grad
    assert buffer.gradient.sum() == sum(p.numel() for p in parameters)


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(120.0).reshape(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        torch.arange(4.0).reshape(4, 1).expand(4, 1),
    ],
    ids=["transposed", "channels last", "permuted", "a dimension of one"],
)
def test_strides_in_any_order_are_kept(value: Tensor) -> None:
    parameters = [nn.Parameter(value.clone()), nn.Parameter(torch.zeros(3)), nn.Parameter(value.clone())]
    strides = parameters[0].stride()
    for p in parameters:
        p.grad = (p.detach() + 1).contiguous()
    buffer = gathered(parameters)
    for p in (parameters[0], parameters[2]):
        assert p.stride() == strides
        assert torch.equal(p, value)
    for p, view in zip(buffer.parameters, buffer.beside(buffer.gradient), strict=True):
        assert torch.equal(view, p.detach() + 1), "element by element, however the gradient lies"
    with torch.no_grad():
        buffer.leaf.sub_(buffer.gradient)
    assert all((p == -1).all() for p in parameters)


def test_a_gradient_of_another_dtype_is_cast() -> None:
    parameters = some()
    buffer = Buffer.around(parameters)
    parameters[0].data = parameters[0].data.double()
    parameters[0].grad = torch.full_like(parameters[0], 0.5)
    with torch.no_grad():
        assert buffer.gather() == []
    views = dict(zip(buffer.parameters, buffer.beside(buffer.gradient), strict=True))
    assert (views[parameters[0]] == 0.5).all()


# ---- rows ----

LAYERS = [(4, 4), (4,), (4, 4), (4,), (7,), (8, 4), (4, 4), (2, 4, 2), (8,), (16,), (8, 4), (2, 4, 2), ()]
"""Of (n, 4) there are five, of (n,) four and one that is odd, of (n, 4, 2) too few for a row."""


def layers(dtype: torch.dtype) -> list[nn.Parameter]:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in LAYERS]
    for p in parameters:
        p.grad = torch.randn(p.shape).to(dtype)
    return parameters


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_parameters_of_a_row_lie_side_by_side_without_gaps(dtype: torch.dtype) -> None:
    parameters = layers(dtype)
    before = [p.detach().clone() for p in parameters]
    buffer = gathered(parameters)
    assert [tuple(p.shape) for p in buffer.parameters] == [
        *[(4, 4), (4, 4), (8, 4), (4, 4), (8, 4)],
        *[(4,), (4,), (8,), (16,)],
        *[(2, 4, 2), (2, 4, 2)],
        *[(7,), ()],
    ]
    assert len(gaps(buffer, buffer.leaf)) < 2 * 16
    for p, was in zip(parameters, before, strict=True):
        assert torch.equal(p, was)
    for p, view in zip(buffer.parameters, buffer.beside(buffer.gradient), strict=True):
        assert p.grad is not None
        assert torch.equal(view, p.grad)


@pytest.mark.parametrize("gone", [[0], [2, 8], [1, 3, 9], [4, 12], list(range(12)), list(range(13))])
def test_the_pieces_of_a_buffer_gather_what_is_theirs(gone: list[int]) -> None:
    parameters = layers(torch.float32)
    whole = gathered(parameters)
    expected = whole.gradient.clone()
    out = {whole.parameters[i] for i in gone}
    with torch.no_grad():
        whole.gradient.zero_()
        pieces = whole.without(out)
        for piece, place in pieces:
            assert piece.leaf.data_ptr() == whole.leaf[place].data_ptr()
            assert piece.is_whole()
            assert piece.gather() == []
            assert torch.equal(piece.gradient, expected[place])
    inside = {p for piece, _ in pieces for p in piece.parameters}
    assert not inside & out
    alone = set(whole.parameters) - inside - out
    neighbours = [i for i, p in enumerate(whole.parameters) if p in alone]
    assert all({i - 1, i + 1} - {-1, len(parameters)} <= set(gone) for i in neighbours), (
        "no neighbour is left"
    )


@pytest.mark.parametrize("gone", [[], [2], [1, 3], [5, 10]])
def test_laid_anew_in_their_order_parameters_lie_as_they_did(gone: list[int]) -> None:
    """So a resumed run adds in the same order."""
    buffer = Buffer.around(layers(torch.float32))
    for piece, _ in buffer.without({buffer.parameters[i] for i in gone}):
        order, places = (
            list(piece.parameters),
            [p.data_ptr() - piece.leaf.data_ptr() for p in piece.parameters],
        )
        again = Buffer.around(order)
        assert all(p is q for p, q in zip(again.parameters, order, strict=True))
        assert [p.data_ptr() - again.leaf.data_ptr() for p in order] == places
        assert again.leaf.shape == piece.leaf.shape


@pytest.mark.parametrize("i", range(6))
def test_whole_until_one_parameter_is_moved(i: int) -> None:
    parameters = some()
    buffer = gathered(parameters)
    with torch.no_grad():
        parameters[i].mul_(2)
    assert buffer.is_whole(), "written in place"
    own = parameters[i].data
    parameters[i].data = own.clone()
    assert not buffer.is_whole()
    parameters[i].data = own
    assert buffer.is_whole(), "swapped out and back"


def test_dissolved_it_leaves_the_parameters_and_their_gradients_where_they_are() -> None:
    parameters = some()
    expected = [(p.detach().clone(), p.grad, p.data_ptr()) for p in parameters]
    buffer = gathered(parameters)
    places = [p.data_ptr() for p in parameters]
    buffer.dissolve()
    assert not hasattr(buffer, "leaf")
    for p, (value, gradient, was), place in zip(parameters, expected, places, strict=True):
        assert torch.equal(p, value)
        assert p.grad is gradient
        assert p.data_ptr() == place != was


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]])
def test_parameters_move_on_into_another_buffer(order: list[int]) -> None:
    parameters = some()
    expected = [p.detach().clone() for p in parameters]
    Buffer.around(parameters)
    second = gathered([parameters[i] for i in order])
    assert second.is_whole()
    assert all(torch.equal(p, was) for p, was in zip(parameters, expected, strict=True))
    second.leaf.data.zero_()
    assert not any(p.any() for p in parameters)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_parameter_has_a_storage_of_its_own(dtype: torch.dtype) -> None:
    """As those have that never moved: tools that save models take one storage for one weight."""
    parameters = some(dtype)
    Buffer.around(parameters)
    assert len({p.untyped_storage().data_ptr() for p in parameters}) == len(parameters)
    for p in parameters:
        assert p.storage_offset() == 0
        assert p.untyped_storage().nbytes() == p.nbytes
        file = io.BytesIO()
        torch.save(p.detach(), file)
        alone = io.BytesIO()
        torch.save(p.detach().clone(), alone)
        assert len(file.getvalue()) == len(alone.getvalue())


def test_strides_in_any_order_stay() -> None:
    one = nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    other = nn.Parameter(torch.randn(4, 1).t())
    strides, values = [one.stride(), other.stride()], [one.detach().clone(), other.detach().clone()]
    Buffer.around([one, other])
    assert [one.stride(), other.stride()] == strides
    assert torch.equal(one, values[0])
    assert torch.equal(other, values[1])


def test_the_memory_lives_as_long_as_one_parameter_in_it() -> None:
    parameters = some()
    expected = parameters[3].detach().clone()
    buffer = Buffer.around(parameters)
    released = weakref.ref(buffer.leaf)
    last = parameters[3]
    del buffer, parameters
    assert released() is None
    torch.zeros(64)  # what might come to lie in memory that is free
    assert torch.equal(last, expected)


def test_a_graph_over_the_parameters_reaches_them() -> None:
    parameters = some(grad=False)
    Buffer.around(parameters)
    sum((p * p).sum() for p in parameters).backward()  # type: ignore[union-attr]
    for p in parameters:
        assert p.grad is not None
        torch.testing.assert_close(p.grad, 2 * p.detach())
