"""The device that a model runs on, and the dtype of its weights."""

from __future__ import annotations

from kvstore.errors import UnknownNameError, UsageError

DTYPES = ("float32", "bfloat16", "float16")


def choose_device(device: str | None = None) -> str:
    """The device asked for (`UsageError` if it is not there), else cuda, else mps, else cpu."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{device}' cannot be used: {str(error).splitlines()[0]}") from error
    return device


def choose_dtype(dtype: str | None, device: str) -> str:
    """The dtype asked for, else bfloat16 on cuda and float32 elsewhere."""
    if dtype is None:
        return "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    return dtype
