"""The tensors of a tree: taken out of it, written by `torch.distributed.checkpoint`, read and put back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from optimscheduler.run.distributed.world import World
from optimscheduler.shards import local

__all__ = [
    "Like",
    "Place",
    "check_tensors",
    "places_of",
    "read_tensors",
    "staged",
    "tensors_in",
    "unique_tensors",
    "whole",
    "without_tensors",
    "write_tensors",
]

State = dict[str, Any]  # Any: a tree of plain values and tensors

_FILE: Final = 2**27  # bytes

Place = tuple[str | int, ...]
"""The keys and indices that lead to a tensor in a tree."""

Like = Callable[[Place, torch.Size, torch.dtype], Tensor]
"""Given the place, shape and dtype of a tensor: an empty one to read it into, whole or sharded."""


def whole(_place: Place, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """The whole of each, on the CPU."""
    return torch.empty(size, dtype=dtype)


def tensors_in(tree: object, path: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """Every tensor in a tree of mappings and sequences, with its place."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, item in tree.items():
            yield from tensors_in(item, (*path, key))
    elif isinstance(tree, list | tuple):
        for index, item in enumerate(tree):
            yield from tensors_in(item, (*path, index))


def without_tensors(tree: object) -> Any:  # Any: a tree of plain values
    """The tree with None for every tensor."""
    if isinstance(tree, Tensor):
        return None
    if isinstance(tree, Mapping):
        return {key: without_tensors(item) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_tensors(item) for item in tree]
    return tree


def places_of(state: Mapping[str, Any]) -> list[tuple[list[str | int], str]]:
    """Where each tensor belongs, and under which name it is saved; tied weights share one."""
    names: dict[tuple[object, ...], str] = {}
    return [(list(place), names.setdefault(_identity(t), _name(place))) for place, t in tensors_in(state)]


def unique_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name -> tensor, each once."""
    names = {name for _, name in places_of(state)}
    return {_name(at): t.detach().contiguous() for at, t in tensors_in(state) if _name(at) in names}


def _name(place: Place) -> str:
    return "/".join(map(str, place))


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """Equal for two tensors that are the same memory seen in the same way."""
    here = local(tensor)
    return (here.data_ptr() or id(tensor), here.device, here.dtype, here.shape, here.stride())


def _put(tree: Any, place: Sequence[str | int], tensor: Tensor) -> None:  # Any: a tree
    *way, last = place
    for key in way:
        tree = tree[key]
    tree[last] = tensor


def staged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the memory of the host, that training does not touch."""
    return BlockingAsyncStager().stage(tensors)


def write_tensors(folder: Path, tensors: dict[str, Tensor], world: World) -> None:
    """Write them into a folder, each rank its share, as safetensors files, which hold numbers alone."""
    with _quiet():
        save_tensors(
            tensors,
            storage_writer=HuggingFaceStorageWriter(
                str(folder), fqn_to_index_mapping=_files_of(tensors), save_distributed=True
            ),
            process_group=world.group,
            no_dist=world.group is None,
        )


def _files_of(tensors: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Which file each goes into, from 1, so that none is much larger than `_FILE`.

    A file is seen as a part of memory while it is read, and only then.
    """
    files, size = {}, 0
    for name, tensor in tensors.items():
        files[name] = size // _FILE + 1
        size += tensor.numel() * tensor.element_size()
    return files or None


def check_tensors(folder: Path, names: Iterable[str]) -> None:
    """Check, before memory is asked for, that tensors are there and no larger than the files they are in.

    Raises:
        ValueError: they are not.
    """
    names = set(names)
    if not names:
        return
    stored: Mapping[str, Any] = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    if missing := sorted(names - set(stored)):
        raise ValueError(f"the tensor {missing[0]} is missing")
    bytes_wanted = sum(stored[name].size.numel() * stored[name].properties.dtype.itemsize for name in names)
    bytes_there = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if bytes_wanted > bytes_there:
        raise ValueError(f"its tensors claim {bytes_wanted:,} bytes, and its files have {bytes_there:,}")


def read_tensors(
    folder: Path, state: State, places: Sequence[tuple[list[str | int], str]], like: Like, world: World
) -> None:
    """Read those that belong to a tree, and put them in.

    Args:
        folder: where they are.
        state: the tree, with None in their places.
        places: from `places_of`.
        like: what to read each into.
        world: who reads.
    """
    if not places:
        return
    reader = HuggingFaceStorageReader(str(folder))
    stored: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    into: dict[str, Tensor] = {}
    for place, name in places:
        size, dtype = stored[name].size, stored[name].properties.dtype
        into.setdefault(name, like(tuple(place), size, dtype))
    with _quiet():
        load_tensors(into, storage_reader=reader, process_group=world.group, no_dist=world.group is None)
    for place, name in places:
        _put(state, place, into[name])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's note that a single process saves for itself alone, which is meant here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch.distributed.checkpoint")
        warnings.filterwarnings("ignore", message=".*(TypedStorage|single process|no_dist).*")
        yield
