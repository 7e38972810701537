"""`streamvlm world`: make synthetic streams with known truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

app = typer.Typer(help="Synthetic streams with an exact event log.", no_args_is_help=True)
Choice = Literal["all", "seen", "held_out"]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="A kind of question, repeatable; see `world list`.")]
Distances = Annotated[
    list[float] | None,
    typer.Option("--distance", help="Seconds back to what is asked about, repeatable; 0 is the last 16 s."),
]
LooksOption = Annotated[
    str, typer.Option("--looks", help="all, seen (what training shows) or held_out (mostly what it never shows).")
]


@app.callback()
def world() -> None:
    """Synthetic streams with an exact event log."""


@contextmanager
def _complaints() -> Iterator[None]:
    """A caller's mistake becomes a line of text and exit status 2."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def render(  # noqa: PLR0913 -- a flag each
    seed: Annotated[int, typer.Option(help="Every seed is another stream.")],
    out: Annotated[Path, typer.Option(help="Folder for video.mp4, qa.json, events.json and watches.json.")],
    seconds: Annotated[float, typer.Option(min=4.0, help="Length of the stream.")] = 60.0,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames per second of the video.")] = 12.0,
    size: Annotated[int, typer.Option(min=16, help="Side of the square picture, pixels.")] = 192,
    questions: Annotated[int, typer.Option(min=0, help="How many; 0 is one every two seconds.")] = 0,
    watches: Annotated[int, typer.Option(min=0, help="How many conditions to wait for.")] = 0,
    looks: LooksOption = "all",
    held_out: Annotated[bool, typer.Option("--held-out", help="The same as --looks held_out.")] = False,
    kind: Kinds = None,
    distance: Distances = None,
) -> None:
    """Render a stream to H.264, with questions, answers and the event log."""
    from streamvlm.world.exam import ASKED, WINDOW
    from streamvlm.world.video import Asking, VideoSpec, render

    shown = cast(Choice, "held_out" if held_out else looks)
    with _complaints():
        asking = Asking(questions, kind or ASKED, distance or (WINDOW,), watches)
        render(seed, seconds, out, VideoSpec(fps=fps, size=size), looks=shown, asking=asking)
    typer.echo(f"wrote {out / 'video.mp4'}, {out / 'qa.json'} and {out / 'events.json'}")


@app.command("list")
def list_kinds() -> None:
    """The kinds of question, with OVO-Bench's names of the tasks (PO: StreamingBench's proactive output)."""
    from streamvlm.world.kinds import KINDS

    typer.echo(f"{'kind':<12}{'group':<11}{'task':<6}asks")
    for one in KINDS.values():
        typer.echo(f"{one.name:<12}{one.group:<11}{one.code:<6}{one.about}")


@app.command()
def report(
    seeds: Annotated[int, typer.Option(min=2, help="How many streams.")] = 20,
    first_seed: Annotated[int, typer.Option(help="The first one's seed.")] = 2_000_000,
    seconds: Annotated[float, typer.Option(min=4.0, help="Length of a stream.")] = 120.0,
    questions: Annotated[int, typer.Option(min=1, help="Per stream.")] = 60,
    looks: LooksOption = "all",
    kind: Kinds = None,
    distance: Distances = None,
) -> None:
    """What the generator asks, how even the answers are, and what one gets right without looking."""
    from streamvlm.world.exam import ASKED, WINDOW
    from streamvlm.world.report import lines, survey

    with _complaints():
        found = survey(
            first_seed, seeds, seconds, questions,
            looks=cast(Choice, looks), kinds=kind or ASKED, distances=distance or (WINDOW,),
        )  # fmt: skip
    for line in lines(found):
        typer.echo(line)
