"""kill -9 while writing: no committed block is lost, none that is torn is accepted, and the store always opens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

KILLS = 200


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The killing is done by a process of its own: forking this one, with its threads, would be unsafe."""
    script = Path(__file__).parent / "crash_writer.py"
    command = [sys.executable, str(script), str(tmp_path), str(KILLS), "7"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    seen = json.loads(result.stdout)
    assert seen["kills"] == KILLS
    assert seen["committed"] > KILLS, "the writers hardly wrote"
    assert seen["recovered"] > 0, "no writer was killed between sync and commit"
    assert seen["truncated"] > 0, "no writer was killed inside a record"
