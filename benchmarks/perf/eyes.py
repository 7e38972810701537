"""What is gained by encoding in one call of the vision tower what waits for it at once, and who waits longer for it?

Both ways in turns within one run: the tower by itself, temporal patches in one call against a call for each; files,
several at once watched as fast as they can be; cameras, several at once, whose lag must not grow. Of the tower the best
turn counts, because a shared machine only ever adds time; of files the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamvlm import Agent, Frame, FramePerceived, Stream, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, draw_pictures, log, make_parser, positive, quantiles

SEED = 2_600_000
PATCHES = (1, 2, 4, 8, 16)  # of one call
STREAMS = (1, 2, 4, 8)  # at once
WAYS = {"together": True, "apart": False}


@dataclass(frozen=True, slots=True)
class Watched:
    """Streams that were watched at once."""

    vision: float  # seconds of the vision tower, all streams
    wall: float  # seconds
    per_call: float  # patches that shared a call, on average over the calls
    lags: tuple[float, ...]  # seconds; of cameras
    dropped: int  # frames; of cameras


def encode(model: Any, patches: Sequence[Tensor], *, together: bool) -> tuple[Tensor, float]:  # noqa: ANN401
    """Features of temporal patches of one size, [patches, tokens, hidden], and the seconds it took."""
    begun = time.perf_counter()
    spans = [(float(i), 1.0) for i in range(len(patches))]
    if together:
        made = model.encode_patches(patches, spans)
    else:
        made = [model.encode(patch, [span])[0] for patch, span in zip(patches, spans, strict=True)]
    features = torch.stack([one.embeds for one in made]).cpu()  # waits for an accelerator
    return features, time.perf_counter() - begun


def tower(model: Any, pictures: Sequence[Tensor], turns: int) -> dict[str, Any]:  # noqa: ANN401
    """Seconds of one call for so many patches against as many calls, and how far their features are apart."""
    size = model.pixels.temporal
    found: dict[str, Any] = {}
    for n in PATCHES:
        patches = [torch.stack([pictures[(i + k) % len(pictures)] for k in range(size)]) for i in range(n)]
        turned = [(encode(model, patches, together=True), encode(model, patches, together=False)) for _ in range(turns)]
        together, apart = (min(seconds for _, seconds in way) for way in zip(*turned, strict=True))
        (one, _), (other, _) = turned[0]
        found[str(n)] = {
            "ratio": round(together / apart, 4),
            "together_ms": round(1e3 * together, 3),
            "apart_ms": round(1e3 * apart, 3),
            "difference": float((one - other).abs().max()),
        }
        log.info("a call for %d patches: %s", n, found[str(n)])
    return found


def film(pictures: Sequence[Tensor], first: int, fps: float) -> Iterator[Frame]:
    """A file's frames; each stream begins at another picture."""
    for i in range(len(pictures)):
        yield Frame(pictures[(first + i) % len(pictures)], i / fps, 1 / fps)


def camera(pictures: Sequence[Tensor], first: int, fps: float) -> Iterator[Frame]:
    """The same, each frame at its moment."""
    begun = time.monotonic()
    for frame in film(pictures, first, fps):
        time.sleep(max(0.0, begun + frame.pts - time.monotonic()))
        yield Frame(frame.data, frame.pts, frame.duration, time.monotonic())


def watch(agent: Agent, pictures: Sequence[Tensor], n: int, fps: float, *, together: bool, live: bool) -> Watched:
    """So many streams at once, to their end."""
    show = camera if live else film
    streams: list[Stream] = []
    begun = time.perf_counter()
    for i in range(n):
        source = show(pictures, 7 * i, fps)
        streams.append(agent.watch(source, fps=fps, realtime=live, share_tower=together))
    heard = [stream.events() for stream in streams]
    for stream in streams:
        stream.wait()
    wall = time.perf_counter() - begun
    dropped = sum(stream.stats.frames_dropped for stream in streams)
    for stream in streams:
        stream.close()
    events = [e for channel in heard for e in channel if isinstance(e, FramePerceived)]
    lags = tuple(e.lag for e in events if e.lag is not None)
    calls = sum(1 / e.batch for e in events if e.batch)
    return Watched(sum(e.encode_seconds for e in events), wall, len(events) / calls, lags, dropped)


def files(agent: Agent, pictures: Sequence[Tensor], turns: int) -> dict[str, Any]:
    """Vision and wall time together against apart, by the number of files."""
    found: dict[str, Any] = {}
    for n in STREAMS:
        seen: dict[str, list[Watched]] = {way: [] for way in WAYS}
        for _ in range(turns):
            for way, together in WAYS.items():
                seen[way].append(watch(agent, pictures, n, 2.0, together=together, live=False))
        pairs = list(zip(seen["together"], seen["apart"], strict=True))
        found[str(n)] = {
            "vit_ratio": round(statistics.median(a.vision / b.vision for a, b in pairs), 4),
            "wall_ratio": round(statistics.median(a.wall / b.wall for a, b in pairs), 4),
            "per_call": round(statistics.median(a.per_call for a, _ in pairs), 3),
            "apart_per_call": round(statistics.median(b.per_call for _, b in pairs), 3),
        }
        log.info("%d files: %s", n, found[str(n)])
    return found


def cameras(agent: Agent, pictures: Sequence[Tensor], arguments: argparse.Namespace) -> dict[str, Any]:
    """Lag and vision time of cameras both ways."""
    shown = pictures[: int(arguments.seconds * arguments.fps)]
    found: dict[str, Any] = {}
    for way, together in WAYS.items():
        one = watch(agent, shown, arguments.cameras, arguments.fps, together=together, live=True)
        found[way] = {
            "lag_s": quantiles(one.lags, 4),
            "dropped": one.dropped,
            "vision_s": round(one.vision, 4),
            "per_call": round(one.per_call, 3),
        }
        log.info("%d cameras %s: %s", arguments.cameras, way, found[way])
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All three."""
    model = load_model(begin(arguments))
    pictures = draw_pictures(SEED, max(arguments.frames, int(arguments.seconds * arguments.fps)), 2.0)
    found: dict[str, Any] = {"model": arguments.model, "threads": torch.get_num_threads(), "turns": arguments.turns}
    found["tower"] = tower(model, pictures, 8 * arguments.turns)
    with Agent(model) as agent:
        watch(agent, pictures[:16], 1, 2.0, together=True, live=False)  # what is loaded or compiled at first
        found["files"] = files(agent, pictures[: arguments.frames], arguments.turns)
        found["cameras"] = cameras(agent, pictures, arguments)
    about = {"frames": arguments.frames, "fps": arguments.fps, "seconds": arguments.seconds, "count": arguments.cameras}
    return found | {"asked": about}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("The vision tower run once for what waits at once, against once for each temporal patch.")
    parser.add_argument("--frames", type=positive, default=32, help="of each file")
    parser.add_argument("--turns", type=positive, default=5, help="each way")
    parser.add_argument("--cameras", type=positive, default=4, help="watched at once")
    parser.add_argument("--fps", type=float, default=2.0, help="of a camera")
    parser.add_argument("--seconds", type=float, default=10.0, help="that cameras are watched, each way")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="eyes")


if __name__ == "__main__":
    main()
