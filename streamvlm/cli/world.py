"""`streamvlm world`: make synthetic streams with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Synthetic streams with an exact event log.", no_args_is_help=True)


@app.callback()
def world() -> None:
    """Synthetic streams with an exact event log."""


@app.command()
def render(
    seed: Annotated[int, typer.Option(help="Every seed is another stream.")],
    out: Annotated[Path, typer.Option(help="Folder for video.mp4, qa.json and events.json.")],
    seconds: Annotated[float, typer.Option(min=2.0, help="Length of the stream.")] = 60.0,
    fps: Annotated[int, typer.Option(min=1, help="Frames per second of the video.")] = 12,
    size: Annotated[int, typer.Option(min=16, help="Side of the square picture, pixels.")] = 192,
    questions: Annotated[int, typer.Option(min=0, help="How many; 0 is one every two seconds.")] = 0,
) -> None:
    """Render a stream to H.264, with questions, answers and the event log."""
    from streamvlm.world.video import VideoSpec, render

    render(seed, seconds, out, VideoSpec(fps=fps, size=size), questions)
    typer.echo(f"wrote {out / 'video.mp4'}, {out / 'qa.json'} and {out / 'events.json'}")
