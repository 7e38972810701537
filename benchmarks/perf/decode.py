"""Is a file read faster by several threads, and are its frames the same?

Files of one length with many and with few keyframes, of constant and variable rate, read at full rate by one source and
by the other in turns; the best of several turns counts, because a shared machine only ever adds time.
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

from streamvlm import SourceOptions, open_source
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.world.story import Story
from streamvlm.world.video import frames

RATE = 30  # pictures a second
TICKS = 15360  # a second
SEED = 2_500_000
FILES = {"gop30": (30, False), "gop250": (250, False), "gop30_variable": (30, True), "gop250_variable": (250, True)}


def film(path: Path, arguments: argparse.Namespace, gop: int, variable: bool) -> Path:
    """A world in H.264, enlarged; a variable rate leaves out pictures in turns of one, two and none."""
    scale = max(1, arguments.height // 192)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"g": str(gop), "preset": "veryfast"})
        stream.height = stream.width = 192 * scale
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, TICKS)
        for index, (moment, picture) in enumerate(frames(Story(SEED), arguments.seconds, RATE)):
            if variable and index % 7 in (1, 4, 5):
                continue
            large = np.ascontiguousarray(picture.repeat(scale, 0).repeat(scale, 1))
            frame = av.VideoFrame.from_ndarray(large, format="rgb24")
            frame.pts, frame.time_base = round(moment * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path, workers: int) -> tuple[float, int]:
    """Seconds for all frames, and a checksum of their times and pixels, which is not part of them."""
    spent, total = 0.0, 0
    with open_source(path, fps=None, options=SourceOptions(workers=workers)) as source:
        while True:
            begun = time.perf_counter()
            frame = next(source, None)
            spent += time.perf_counter() - begun
            if frame is None:
                return spent, total
            total = zlib.crc32(f"{frame.pts} {int(frame.data[:, ::7, ::7].sum())}".encode(), total)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All files."""
    begin(arguments)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="streamvlm-decode-") as folder:
        for name, (gop, variable) in FILES.items():
            path = film(Path(folder) / f"{name}.mp4", arguments, gop, variable)
            best = {1: float("inf"), arguments.workers: float("inf")}
            sums = set()
            for _ in range(arguments.turns):
                for workers in best:
                    seconds, checksum = read(path, workers)
                    best[workers] = min(best[workers], seconds)
                    sums.add(checksum)
            ratio = round(best[arguments.workers] / best[1], 4)
            found[name] = {"identical": len(sums) == 1, "ratio": ratio, "one_s": round(best[1], 4)}
            log.info("%s: %s", name, found[name])
    return {
        "workers": arguments.workers,
        "seconds": arguments.seconds,
        "height": 192 * max(1, arguments.height // 192),
        "files": found,
        "worst_ratio": max(one["ratio"] for one in found.values()),
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
