"""Parameters side by side in one tensor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from optimscheduler.gradients.buffer import Buffer
from optimscheduler.gradients.suited import BUFFERS

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
def test_every_parameter_begins_a_cache_line_and_keeps_its_values(dtype: torch.dtype) -> None:
    parameters, expected = some(dtype), [p.detach().clone() for p in some(dtype)]
    buffer = Buffer.around(parameters)
    start = buffer.leaf.data_ptr()
    assert all((p.data_ptr() - start) % 64 == 0 for p in parameters)
    assert sorted(p.data_ptr() for p in parameters) == [p.data_ptr() for p in parameters]
    assert len({p.untyped_storage().data_ptr() for p in parameters}) == 1
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
    assert [set(p.detach().flatten().tolist()) for p in parameters] == [{float(i)} for i in range(1, 7)]
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
    own = [p.grad for p in parameters]
    buffer = gathered(parameters)
    assert buffer.leaf.grad is buffer.gradient
    for p, gradient, view in zip(parameters, own, buffer.beside(buffer.gradient), strict=True):
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
    before = buffer.gradient.clone()
    for i, p in enumerate(parameters):
        p.grad = None if i in which else torch.zeros_like(p)
    with torch.no_grad():
        unfit = buffer.gather()
    assert [id(p) for p in unfit] == [id(parameters[i]) for i in which]
    assert torch.equal(buffer.gradient, before), "nothing is copied"


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
    for p, view in zip(parameters, buffer.beside(buffer.gradient), strict=True):
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
    assert (buffer.beside(buffer.gradient)[0] == 0.5).all()


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
    assert {p.untyped_storage().data_ptr() for p in parameters} == {second.leaf.untyped_storage().data_ptr()}


def test_the_memory_is_known_as_long_as_it_is_used() -> None:
    parameters = some()
    buffer = Buffer.around(parameters)
    assert parameters[0].untyped_storage() in BUFFERS
    known = len(BUFFERS)
    buffer.dissolve()
    for p in parameters[1:]:
        p.data = p.data.clone()
    assert parameters[0].untyped_storage() in BUFFERS
    parameters[0].data = parameters[0].data.clone()
    assert parameters[0].untyped_storage() not in BUFFERS
    assert len(BUFFERS) == known - 1, "released with its last tensor"


def test_the_memory_is_known_when_the_buffer_is_gone_and_the_parameters_are_not() -> None:
    parameters = some()
    buffer = Buffer.around(parameters)
    del buffer
    assert parameters[3].untyped_storage() in BUFFERS


def test_a_graph_over_the_parameters_reaches_them() -> None:
    parameters = some(grad=False)
    Buffer.around(parameters)
    sum((p * p).sum() for p in parameters).backward()  # type: ignore[union-attr]
    for p in parameters:
        assert p.grad is not None
        torch.testing.assert_close(p.grad, 2 * p.detach())
