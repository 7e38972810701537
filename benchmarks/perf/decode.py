"""Is a file read faster by several threads, and are its frames the same?

Files of one length with many and with few keyframes, of constant and variable rate, read at full rate in turns: by
stretches between keyframes, by one source in which FFmpeg uses the threads it likes, and by PyAV as it comes. Nothing
is done with the frames but turning them into RGB. The best of several turns counts, because a shared machine only ever
adds time. Before that every pixel is compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamvlm import SourceOptions, open_source
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.world.story import Story
from streamvlm.world.video import frames

RATE = 30  # pictures a second
TICKS = 15360  # a second
SEED = 2_500_000
LIMIT = 0.8  # of the time of PyAV as it comes, for two workers on two cores
FILES = {"gop30": (30, False), "gop250": (250, False), "gop30_variable": (30, True), "gop250_variable": (250, True)}


Picture = NDArray[np.uint8]


def film(path: Path, drawn: Sequence[tuple[float, Picture]], scale: int, gop: int, variable: bool) -> Path:
    """Timed pictures as H.264, enlarged; a variable rate leaves out some, one or two in a row."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"g": str(gop), "preset": "veryfast"})
        stream.height = stream.width = 192 * scale
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, TICKS)
        for index, (moment, picture) in enumerate(drawn):
            if variable and index % 7 in (1, 4, 5):
                continue
            large = np.ascontiguousarray(picture.repeat(scale, 0).repeat(scale, 1))
            frame = av.VideoFrame.from_ndarray(large, format="rgb24")
            frame.pts, frame.time_base = round(moment * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seconds_of(path: Path, workers: int) -> float:
    """For all frames, with nothing done with them."""
    begun = time.perf_counter()
    with open_source(path, fps=None, options=SourceOptions(workers=workers)) as source:
        for _ in source:
            pass
    return time.perf_counter() - begun


def seconds_of_pyav(path: Path) -> float:
    """The same in the loop that PyAV's documentation shows."""
    begun = time.perf_counter()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
    return time.perf_counter() - begun


def checksum(path: Path, workers: int) -> tuple[int, int]:
    """How many frames there are, and a checksum of all times and pixels."""
    count = total = 0
    with open_source(path, fps=None, options=SourceOptions(workers=workers)) as source:
        for frame in source:
            count, total = (
                count + 1,
                zlib.crc32(frame.data.contiguous().numpy().tobytes(), zlib.crc32(f"{frame.pts}".encode(), total)),
            )
    return count, total


def compare(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One file both ways."""
    (count, one), (_, several) = checksum(path, 1), checksum(path, arguments.workers)
    best = {"pyav": float("inf"), "one": float("inf"), "several": float("inf")}
    for _ in range(arguments.turns):
        took = (seconds_of_pyav(path), seconds_of(path, 1), seconds_of(path, arguments.workers))
        best = {name: min(before, now) for (name, before), now in zip(best.items(), took, strict=True)}
    seconds = {f"{name}_s": round(value, 4) for name, value in best.items()}
    ratios = {"ratio": best["several"] / best["pyav"], "ratio_to_ffmpeg_threads": best["several"] / best["one"]}
    return {"identical": one == several, "frames": count, **{k: round(v, 4) for k, v in ratios.items()}, **seconds}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All files."""
    begin(arguments)
    scale = max(1, arguments.height // 192)
    drawn = [(moment, picture.copy()) for moment, picture in frames(Story(SEED), arguments.seconds, RATE)]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="streamvlm-decode-") as folder:
        for name, (gop, variable) in FILES.items():
            path = film(Path(folder) / f"{name}.mp4", drawn, scale, gop, variable)
            found[name] = compare(path, arguments)
            log.info("%s: %s", name, found[name])
    return {
        "workers": arguments.workers,
        "seconds": arguments.seconds,
        "height": 192 * scale,
        "files": found,
        "worst_ratio": max(one["ratio"] for one in found.values()),
        "limit": LIMIT,
        "identical": all(one["identical"] for one in found.values()),
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Files decoded by several threads against one, at full rate.")
    parser.add_argument("--workers", type=positive, default=2, help="threads, each a stretch between keyframes")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each file")
    parser.add_argument("--height", type=positive, default=768, help="pixels, about")
    parser.add_argument("--turns", type=positive, default=3, help="of which the best counts")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="decode")


if __name__ == "__main__":
    main()
