"""Trains the micro plan with a checkpoint at every step and is killed (SIGKILL) around one of the writes, many times.

    python crash_trainer.py BASE STEP-MOMENT...

Each case runs in BASE/STEP-MOMENT. MOMENT is `half` (in the middle of the file), `whole` (before it takes its name) or
`named` (right after). Each is a forked child, so that the imports are paid for once. Fails if a child ends otherwise.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch
from training import open_micro

from streamvlm.train import checkpoint


def train_until_killed(folder: Path, step: int, moment: str) -> None:
    """Never returns."""
    save, replace = torch.save, os.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write(state: dict[str, Any], file: BinaryIO) -> None:
        if moment == "half" and state["step"] == step:
            whole = io.BytesIO()
            save(state, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            die()
        save(state, file)

    def move(old: Path, new: Path) -> None:
        now = new.name == "checkpoint.pt" and torch.load(old)["step"] == step
        if now and moment == "whole":
            die()
        replace(old, new)
        if now and moment == "named":
            die()

    checkpoint.torch.save = write  # type: ignore[attr-defined]
    checkpoint.os.replace = move  # type: ignore[attr-defined]
    open_micro(folder, checkpoint_every=1, log_every=1).run()


def main(base: Path, cases: list[str]) -> None:
    """Run every case in a child of its own."""
    for case in cases:
        step, moment = case.split("-")
        child = os.fork()
        if child == 0:
            train_until_killed(base / case, int(step), moment)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"{case} ended with {status}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
