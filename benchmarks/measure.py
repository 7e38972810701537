"""What the benchmarks share: their flags, their pictures, their statistics."""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from streamvlm import Frame, ModelConfig
from streamvlm.world.story import Story
from streamvlm.world.video import frames

log = logging.getLogger("streamvlm.benchmarks")


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, a local folder or a hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--threads", type=int, default=0, help="threads of one torch operation; 0 leaves it to torch")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    return parser


def begin(arguments: argparse.Namespace) -> ModelConfig:
    """Set up threads and progress on stderr; returns the model that was asked for."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return ModelConfig(model=arguments.model, device=arguments.device, dtype=arguments.dtype)


def positive(text: str) -> int:
    """An argument that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def draw_pictures(seed: int, count: int, fps: float) -> list[Tensor]:
    """The first `count` pictures of a story, uint8 [3, H, W]: drawn beforehand, so that drawing costs no step time."""
    drawn: Iterator[tuple[float, np.ndarray]] = frames(Story(seed), count / fps + 1, fps)
    return [torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous() for _, picture in islice(drawn, count)]


def film(seed: int, seconds: float, fps: float) -> Iterator[Frame]:
    """A world as frames."""
    for i, picture in enumerate(draw_pictures(seed, int(seconds * fps), fps)):
        yield Frame(picture, i / fps, 1 / fps)


def quantiles(values: Sequence[float] | np.ndarray, digits: int = 3) -> dict[str, float]:
    """p50, p90, p99 and maximum."""
    p50, p90, p99 = (float(q) for q in np.percentile(values, (50, 90, 99)))
    found = {"p50": p50, "p90": p90, "p99": p99, "max": float(np.max(values))}
    return {name: round(value, digits) for name, value in found.items()}


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 for a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
