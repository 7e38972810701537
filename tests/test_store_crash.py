"""kill -9 while writing: no committed block is lost, none that is torn is accepted, and the store always opens."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

KILLS = 200
MEMORY = Path("/dev/shm")  # a killed process loses nothing the kernel has, so syncs to a busy disk would only take time


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The killing is done by a process of its own: forking this one, with its threads, would be unsafe."""
    script = Path(__file__).parent / "crash_writer.py"
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as folder:
        command = [sys.executable, str(script), folder, str(KILLS), "7"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    seen = json.loads(result.stdout)
    assert seen["kills"] == KILLS
    assert seen["committed"] > KILLS, "the writers hardly wrote"
    assert seen["recovered"] > 0, "no writer was killed between sync and commit"
    assert seen["truncated"] > 0, "no writer was killed inside a record"
