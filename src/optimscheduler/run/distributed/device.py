"""The device of a process."""

from __future__ import annotations

import torch

from optimscheduler.errors import ConfigError

__all__ = ["device_named", "device_of_process"]


def device_named(name: str) -> torch.device:
    """The device to train on.

    Args:
        name: `"auto"`, or what `torch.device` understands.

    Raises:
        ConfigError: it is no name of a device, or there is none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # of many kinds, one for each sort of device
        told = str(error).partition("\n")[0]
        raise ConfigError(
            f"device: {name!r:.80} cannot be used here ({told:.200}); write auto or cpu"
        ) from None
    if device.type == "meta":
        raise ConfigError("device: 'meta' holds no numbers; write auto or cpu")
    return device


def device_of_process(name: str, local: int) -> torch.device:
    """The device of one of several processes on a machine: each has an accelerator of its own.

    Args:
        name: of the configuration.
        local: number of the process on this machine, from 0.

    Raises:
        ConfigError: it is not there.
    """
    device = device_named(name)
    if device.type != "cuda":
        return device
    if device.index is None and local >= torch.cuda.device_count():
        raise ConfigError(
            f"device: process {local} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}; start fewer with --nproc-per-node, or write cpu"
        )
    device = torch.device("cuda", local if device.index is None else device.index)
    torch.cuda.set_device(device)
    return device
