"""Weights and step marks. Nothing here unpickles: weights_only, or safetensors."""

import io
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import nn

from cxrmine.errors import CxrError
from cxrmine.files import write_bytes
from cxrmine.runs import RunFolder

STATE_VERSION = 1
STATE_KEYS = {"model", "optimizer", "position", "metrics_length"}
REFUSED = torch.serialization.pickle.UnpicklingError  # what weights_only raises for anything but tensors and numbers


def save_weights(path: Path, model: nn.Module) -> None:
    """Through bytes: a full disk then shows as an OSError with the file's name."""
    write_bytes(path, to_safetensors({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}))


def load_weights(path: Path, model: nn.Module) -> None:
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as fault:
        line = str(fault).splitlines()[0]
        raise CxrError(f"{path} does not hold this network's weights ({line}).", "Train again with --fresh.") from None


def save_state(folder: RunFolder, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save({"version": STATE_VERSION, **state}, buffer)
    write_bytes(folder.state, buffer.getvalue())


def load_state(folder: RunFolder) -> dict[str, Any] | None:
    """The last step mark, or None where there is none yet."""
    if not folder.state.is_file():
        return None
    try:
        state = torch.load(folder.state, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, REFUSED):
        raise CxrError(f"{folder.state} cannot be read: it is damaged.", "Start again with --fresh.") from None
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION or not state.keys() >= STATE_KEYS:
        raise CxrError(f"{folder.state} is no step mark of this version of cxrmine.", "Start again with --fresh.")
    return state
