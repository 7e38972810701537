"""Write the tables of README.md from benchmarks/results, so that no figure there is ever typed by hand.

`python -m streamvlm.benchmarks.tables` rewrites what stands between `<!-- table: NAME -->` and `<!-- /table -->`;
with `--check` it changes nothing and fails if the README is not what the results say.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.harness import HERE, RESULTS, load
from streamvlm.benchmarks.markdown import table
from streamvlm.benchmarks.memory_tables import recall
from streamvlm.benchmarks.perf_tables import chat, decode, eyes
from streamvlm.benchmarks.thinking_tables import ablation, lag, live, thoughts, watches
from streamvlm.benchmarks.world_table import ages, streamworld, window

README = HERE.parent / "README.md"
PICTURE = "docs/flatness.svg"
PARETO = "docs/tokens.svg"
ENOUGH = 0.98  # of the accuracy without pruning
SECTION = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)
NOT_YET = "Not measured yet.\n"
# Columns and rows of the tables: the key in the result and its name in the README.
POLICIES = {
    "sink_window": "StreamVLM (sink + window)",
    "full": "full attention",
    "sliding_recompute": "window recomputed per frame",
    "last_frames": "last 4 frames recomputed",
}
MODULES = {"window": "streamworld"}  # of results that are not called as theirs
PERF = ("chat", "decode", "eyes", "flatness", "lag", "store", "tokens")  # the modules in benchmarks/perf
WAYS = {
    "live": "live, at its moment",
    "while_watching": "from disk, at the end",
    "reopened": "from disk, reopened",
    "forgotten": "at the end, without a store",
}


def origin(report: dict[str, Any], name: str) -> str:
    """Where the numbers come from."""
    machine, commit = report["machine"], report["git"]["commit"] or "no commit"
    where = machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"
    flags = shlex.join(argument for argument in report["command"][1:] if argument != "--save")
    module = f"streamvlm.benchmarks.{'perf.' if name in PERF else ''}{MODULES.get(name, name)}"
    command = f"python -m {module} {flags}".strip()
    versions = f"torch {machine['torch']}, transformers {machine['transformers']}"
    source = f"[`{name}.json`](benchmarks/results/{name}.json)"
    return f"{source}: `{command}`, {where}, {versions}, {report['date'][:10]}, commit {commit[:10]}."


def by_task(columns: dict[str, Any]) -> str:
    """Accuracy per task and overall, a column for each of `columns`."""
    scores = list(columns.values())
    rows = [[task, *(_share(one["tasks"][task]) for one in scores)] for task in scores[0]["tasks"]]
    rows.append(["**all**", *(f"**{_share(one['overall'])}**" for one in scores)])
    rows.append(["mean ± sd over seeds", *(_spread(one["overall"]) for one in scores)])
    return table(["task", *columns], rows)


def _share(share: dict[str, Any]) -> str:
    if not share["asked"]:
        return "none asked"
    return f"{100 * share['right'] / share['asked']:.1f} % ({share['right']}/{share['asked']})"


def _spread(overall: dict[str, Any]) -> str:
    return f"{100 * overall['mean']:.1f} ± {100 * overall['sd']:.1f} %"


def flatness(report: dict[str, Any]) -> str:
    """Step time early and late, memory, and the picture."""
    found = {key: report["policies"][key] for key in POLICIES if key in report["policies"]}
    rows = []
    for key, result in found.items():
        early, late = result["early"], result["late"]
        rows.append(
            [
                POLICIES[key],
                f"{result['frames']}",
                f"{early['step_ms_p50']:.1f} → {late['step_ms_p50']:.1f} ms",
                f"{result['late_over_early']:.2f}",
                f"{early['cache_mb_used']:.1f} → {late['cache_mb_used']:.1f} MiB",
                f"{result['rss_growth_mb']:+.1f} MiB",
            ]
        )
    ours = report["policies"]["sink_window"]
    first, last = ours["early"]["frames"], ours["late"]["frames"]
    text = (
        f"`{report['model']}` at {report['fps']:g} frames/s with a window of {report['window_seconds']:g} s: medians "
        f"of frames {first[0]}-{first[1]} and {last[0]}-{last[1]} (of shorter runs, their second and last tenth). "
        f"Positions were re-based {ours['rebases']} times. Full attention ends where its cache is full.\n\n"
    )
    picture = f"\n![Time of a step against frame number, four policies]({PICTURE})\n"
    head = ["policy", "frames", "step, early → late", "ratio", "cache used", "process memory"]
    return text + table(head, rows) + (picture if (README.parent / PICTURE).exists() else "")


def past(report: dict[str, Any]) -> str:
    """Accuracy about what has left the window, by task and by way of asking."""
    ways = {key: report["ways"][key] for key in WAYS}
    text = (
        f"`{report['model']}`: the questions of {report['seeds']} seeds whose moment lies more than the window of "
        f"{report['window_seconds']:g} s before the end of a video of {report['seconds']:g} s. Asked about the past, "
        f"they name their last {report['reach_seconds']:g} s; what was brought back held the needed frame for "
        f"{_share(report['found'])}.\n\n"
    )
    return text + by_task({WAYS[key]: way for key, way in ways.items()})


def tokens(report: dict[str, Any]) -> str:
    """What each composition keeps and what it costs, on three kinds of stream, and the picture."""
    kinds = report["streams"]
    measured = ("attention_error", "logit_kl") if "good_enough" in report else ()  # older results lack them
    rows = []
    for spec, found in report["compositions"].items():
        by_kind = [found["streams"][kind] for kind in kinds if kind in found["streams"]]
        shares = [f"{100 * one['kept']:.0f} % → {100 * one['accuracy_ratio']:.1f} %" for one in by_kind]
        shares += ["not run"] * (len(kinds) - len(shares))
        costs = [f"{found[key]:.2f}" for key in ("vit_ratio", "prefill_ratio", *measured)]
        rows.append([f"`{spec}`", *shares, *costs])
    text = (
        f"`{report['model']}`: vision tokens kept → accuracy against no pruning, on {report['questions']} questions "
        "for each kind of stream, over worlds never trained or tuned on. ViT and prefill: time against no pruning in "
        "the same run, of the static camera, pruning included. Without pruning it answers "
        + ", ".join(f"{_share(report['none'][kind]['overall'])} ({kind})" for kind in kinds)
        + f". {_best(report)}\n\n"
    )
    picture = f"\n![Accuracy against tokens kept, for every composition]({PARETO})\n"
    head = ["composition", *(f"{kind}: kept → accuracy" for kind in kinds), "ViT", "prefill"]
    head += ["attention error", "logit KL"][: len(measured)]
    return text + table(head, rows) + (picture if (README.parent / PARETO).exists() else "")


def store(report: dict[str, Any]) -> str:
    """What a question costs early and late, and where the time goes; the disk and the RAM."""
    early, late = report["day"]["early"], report["day"]["late"]
    parts = {
        "to the first token": "to_first_token_ms",
        "… its question read to know what to look for": "probe_ms",
        "… search and choice": "select_ms",
        "… blocks read": "read_ms",
        "… blocks placed": "place_ms",
        "the whole answer": "whole_answer_ms",
    }
    costs = {name: (early[key], late[key]) for name, key in parts.items()}
    rows = [[name, f"{a:.1f} ms", f"{b:.1f} ms", f"{b / a:.2f}" if a else "-"] for name, (a, b) in costs.items()]
    held, cold, spill = report["day"]["store"], report["reading"]["cold"], report["spill"]
    text = (
        f"`{report['model']}` at {report['fps']:g} frame/s, {held['blocks']} stored frames, "
        f"{held['bytes'] / 1e9:.1f} GB: medians of {late['questions']} questions about everything stored. From the "
        f"first to the last of them the process grew by {report['rss_growth_mb']:.0f} MiB. Reading through the store "
        f"reaches {100 * cold['store_over_plain']:.0f} % of a plain sequential read of the same bytes, scattered over "
        f"them {100 * cold['scattered_over_plain']:.0f} % (and {100 * cold['scattered_over_plain_scattered']:.0f} % of "
        f"their bytes read plainly, one block after another), none in the system's cache. Watching with a store takes "
        f"{100 * spill['step_overhead']:+.1f} % time per frame ({_between(spill['step_overhead_95'])}; aim: 5) and "
        f"{100 * spill['cpu_overhead']:+.1f} % CPU time, the engine's thread alone, which runs the steps, "
        f"{100 * spill['engine_thread_overhead']:+.1f} %; the rest is pictures and writing. Stored in 8 "
        f"bits, attention's output is off by at most {100 * report['int8_attention_error']:.2f} %, the distribution of "
        f"an answer's first token by at most {report['int8_logits_kl']:.1e} nats (KL).\n\n"
    )
    return text + table(["median", f"{early['hours']:g} h stored", f"{late['hours']:g} h stored", "ratio"], rows)


def _between(interval: list[float]) -> str:
    low, high = interval
    return f"95 %: {100 * low:+.1f} to {100 * high:+.1f}"


def _best(report: dict[str, Any]) -> str:
    few = f"keeps at most {100 * report['most_kept']:.0f} % on every kind of stream"
    best = report["compositions"].get(report["best"])
    if best is None:
        return f"No composition {few}."
    if best["accuracy_ratio"] < ENOUGH:
        return f"No composition that {few} has {100 * ENOUGH:.0f} % of the accuracy on each with this model."
    return f"The best composition that {few} is `{report['best']}`."


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "past": past,
    "flatness": flatness,
    "lag": lag,
    "recall": recall,
    "store": store,
    "tokens": tokens,
    "ablation": ablation,
    "thoughts": thoughts,
    "live": live,
    "watches": watches,
    "chat": chat,
    "decode": decode,
    "eyes": eyes,
    "streamworld": streamworld,
    "window": window,
    "ages": ages,
}


def section(name: str, results: Path = RESULTS) -> str:
    """What belongs between the markers of table `name`."""
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}; tables are {', '.join(TABLES)}")
    path = results / f"{name}.json"
    if not path.exists():
        return NOT_YET
    report = load(path)
    return f"{TABLES[name](report)}\n{origin(report, name)}\n"


def fill(text: str, results: Path = RESULTS) -> str:
    """`text` with all its tables as the results say."""
    return SECTION.sub(lambda found: found[1] + section(found[2], results) + found[4], text)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Write the tables of README.md from benchmarks/results.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if README.md is out of date")
    arguments = parser.parse_args(argv)
    old = README.read_text(encoding="utf-8")
    new = fill(old)
    if arguments.check and new != old:
        sys.exit("README.md is out of date: run python -m streamvlm.benchmarks.tables")
    if not arguments.check:
        README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
