"""`streamvlm doctor`: what this machine has, and whether the whole line works on it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import typer
from rich.console import Console
from rich.text import Text

Mark = Literal["ok", "warn", "fail"]
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
OPTIONAL = {"decord": "PyAV reads video instead", "faiss": "nothing needs it yet", "gradio": "needed for the chat only"}
PACKAGES = {"faiss": "faiss-cpu"}  # where the distribution is not named like the module
IMPORT_SECONDS = 120.0
SEED = 12  # of the rendered second


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    mark: Mark
    detail: str


def examine(as_json: bool) -> bool:
    """Look at everything and print it; whether nothing failed."""
    findings = []
    console = Console(highlight=False)
    for finding in _findings():
        findings.append(finding)
        if not as_json:
            mark = (f"{finding.mark:5}", STYLES[finding.mark])
            console.print(Text.assemble(mark, f"{finding.name:13}", finding.detail), soft_wrap=True)
    good = all(finding.mark != "fail" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": good, "findings": [asdict(finding) for finding in findings]}))
    return good


def _findings() -> Iterator[Finding]:
    imports = {name: _begin_import(name) for name in OPTIONAL}
    yield Finding("python", "ok" if sys.version_info >= (3, 11) else "fail", platform.python_version())
    yield Finding("platform", "ok", platform.platform())
    yield from _guarded(_torch, "torch")
    yield _required("transformers")
    yield from _guarded(_av, "av")
    for name, process in imports.items():
        yield _optional(name, process)
    yield _tiny()
    yield from _guarded(_self_test, "self-test")


def _guarded(look: Callable[[], Iterator[Finding]], name: str) -> Iterator[Finding]:
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - whatever is broken is what a doctor is asked to tell
        yield Finding(name, "fail", f"{type(error).__name__}: {error}")


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("accelerator", "ok", f"CUDA {torch.version.cuda}: {', '.join(names)}")
    elif torch.backends.mps.is_available():
        yield Finding("accelerator", "ok", "MPS")
    else:
        yield Finding("accelerator", "warn", "none: fine for tiny, slow for anything else")


def _required(package: str) -> Finding:
    try:
        return Finding(package, "ok", version(package))
    except PackageNotFoundError:
        return Finding(package, "fail", "not installed")


def _av() -> Iterator[Finding]:
    import av

    libraries: dict[str, tuple[int, ...]] = av.library_versions
    shown = ", ".join(f"{name} {'.'.join(map(str, number))}" for name, number in sorted(libraries.items()))
    yield Finding("av", "ok", f"{av.__version__} ({shown})")


def _begin_import(name: str) -> subprocess.Popen[str] | None:
    """Import it in a process of its own: native libraries can take the whole process down."""
    if find_spec(name) is None:
        return None
    command = [sys.executable, "-c", f"import {name}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _optional(name: str, process: subprocess.Popen[str] | None) -> Finding:
    if process is None:
        return Finding(name, "warn", f"not installed: {OPTIONAL[name]}")
    try:
        _, said = process.communicate(timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return Finding(name, "warn", f"still importing after {IMPORT_SECONDS:.0f} s: {OPTIONAL[name]}")
    if process.returncode:
        last = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        return Finding(name, "warn", f"cannot be imported ({last}): {OPTIONAL[name]}")
    return Finding(name, "ok", version(PACKAGES.get(name, name)))


def _tiny() -> Finding:
    folder = Path(__file__).resolve().parent.parent / "models" / "tiny"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return Finding("tiny", "fail", f"no weights in {folder}")
    return Finding("tiny", "ok", f"{sum(path.stat().st_size for path in weights) / 2**20:.1f} MiB")


def _self_test() -> Iterator[Finding]:
    """Render one second, watch it, ask about it."""
    from streamvlm import Agent

    begun = time.monotonic()
    frames, question, truth = _rendered_second()
    with Agent.from_pretrained("tiny") as agent, agent.watch(frames) as stream:
        answer = stream.ask(question, at=1.0)
        said = answer.text(timeout=60.0)
    right = said.strip(" .").lower() == truth
    detail = f"{question} {said} ({'right' if right else f'it is {truth}'}), {time.monotonic() - begun:.1f} s"
    yield Finding("self-test", "ok" if right else "warn", detail)


def _rendered_second() -> tuple[list[Any], str, str]:
    """Frames, a question about them, and the true answer."""
    import torch

    from streamvlm import Frame
    from streamvlm.world.story import Story
    from streamvlm.world.video import frames

    story = Story(SEED)
    scene = story.scene_at(0.0)
    assert scene is not None
    thing = next(t for t in scene.things if len(scene.find(shape=t.shape)) == 1)
    pictures = [
        Frame(torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous(), pts, 0.5)
        for pts, picture in frames(story, 1.0, 2.0)
    ]
    return pictures, f"what color is the {thing.shape}?", thing.color
