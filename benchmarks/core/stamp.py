"""How a run was made: what must be equal for its results to be equal, and what was true of each start."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamvlm import Agent
from streamvlm.benchmarks.core.benchmark import Benchmark, file_hash, prompt_hash
from streamvlm.benchmarks.core.journal import STAMP, Shard
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.records import Sample
from streamvlm.benchmarks.harness import commit, machine
from streamvlm.config import Config

EACH = 64  # values of a weight that go into the hash


def stamp(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    protocol: Protocol,
    config: Config,
    annotations: Path | None,
    agent: Agent | None,
) -> dict[str, Any]:
    """What must agree when a run is continued or its shards are merged. JSON."""
    asked = agent is not None
    return {
        "benchmark": benchmark.name,
        "average": benchmark.average,
        "settings": benchmark.settings(),
        "protocol": asdict(protocol),
        "annotations": None if annotations is None else {"name": annotations.name, "sha256": file_hash(annotations)},
        "samples": len(samples),
        "prompts_sha256": prompt_hash(samples),
        "model": _model(config) if asked else None,
        "weights_sha256": weights(agent) if agent is not None else None,
        "watch": asdict(config.watch) if asked else None,
        "sampling": asdict(config.sampling) if asked else None,
    }


def start(found: dict[str, Any], shard: Shard) -> dict[str, Any]:
    """A start of a run: its stamp, when, with what code and on which machine."""
    return {
        STAMP: found,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "shard": f"{shard.index + 1}/{shard.count}",
        "git": commit(),
        "machine": machine(),
    }


def weights(agent: Agent) -> str:
    """A hash over the first values of every weight: another checkpoint has another."""
    digest = hashlib.sha256()
    for name, weight in agent.model.module.named_parameters():
        values = weight.detach().flatten()[:EACH].float().cpu().numpy()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _model(config: Config) -> dict[str, Any]:
    """Without where it runs: shards may run on several devices."""
    return {k: v for k, v in asdict(config.model).items() if k not in ("device", "device_map")}
