"""What `accelerate launch` runs in every process: `python launched.py FOLDER STEP`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from training import open_micro


def main(folder: Path, step: int) -> None:
    """Train the micro plan, two batches a step; the first process says how it went."""
    trainer = open_micro(folder, micro_batches=2)
    trainer.run(until=step)
    if trainer.accelerator.is_main_process:
        print(json.dumps({"processes": trainer.accelerator.num_processes, "step": trainer.step}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
