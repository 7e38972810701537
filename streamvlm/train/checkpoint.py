"""The file a run resumes from: whole or not there, whenever the process dies."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamvlm.errors import TrainingError

FORMAT = 2


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything the steps still to come depend on."""

    step: int  # steps done
    course: str  # what was trained, as text, to notice that a plan has changed
    weights: dict[str, Tensor]  # the trained ones; what is frozen comes from where it came from
    optimizer: dict[str, Any]
    scaler: dict[str, Any]  # of fp16; {} otherwise


def trained(module: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, by name."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file in one move: a kill at any moment leaves the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint, on the CPU; None where there is none.

    Raises:
        TrainingError: it is damaged or of another version of this program.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); --restart begins again without it") from error
    if not isinstance(state, dict) or state.pop("format", None) != FORMAT:
        raise TrainingError(f"{path}: written by another version; --restart begins again without it")
    return Checkpoint(**state)


def load_weights(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Put a checkpoint's weights into the module they were taken from.

    Raises:
        TrainingError: they are not this module's.
    """
    mine = trained(module)
    odd = sorted(set(mine) ^ set(weights)) or [n for n in mine if mine[n].shape != weights[n].shape]
    if odd:
        raise TrainingError(f"{path}: it is of another model ({len(odd)} weights differ, {odd[0]} for one)")
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(weights[name])
