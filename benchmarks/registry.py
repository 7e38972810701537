"""The benchmarks by name; a module is imported when its benchmark is wanted."""

from __future__ import annotations

from importlib import import_module

from streamvlm.benchmarks.core.benchmark import Benchmark

BENCHMARKS = {
    "streamworld": ("streamvlm.benchmarks.suites.streamworld", "StreamWorld"),
    "ovobench": ("streamvlm.benchmarks.suites.ovobench", "OvoBench"),
    "streamingbench": ("streamvlm.benchmarks.suites.streamingbench", "StreamingBench"),
    "streameqa": ("streamvlm.benchmarks.suites.streameqa", "StreamEqa"),
    "odvbench": ("streamvlm.benchmarks.suites.odvbench", "OdvBench"),
    "svbench": ("streamvlm.benchmarks.suites.svbench", "SvBench"),
    "vstreamqa": ("streamvlm.benchmarks.suites.vstreamqa", "VStreamQa"),
    "magqa": ("streamvlm.benchmarks.suites.magqa", "Magqa"),
    "ovotiming": ("streamvlm.benchmarks.suites.ovotiming", "OvoTiming"),
    "livesports": ("streamvlm.benchmarks.suites.commentary", "LiveSports"),
    "infstreams": ("streamvlm.benchmarks.suites.commentary", "InfStreams"),
}


def find(name: str) -> Benchmark:
    """A benchmark.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    module, attribute = BENCHMARKS[name]
    found: Benchmark = getattr(import_module(module), attribute)()
    return found
