"""The tables of README.md about answering and thinking while watching."""

from __future__ import annotations

from typing import Any

from streamvlm.benchmarks.markdown import table
from streamvlm.benchmarks.world_table import by_distance

# Columns and rows: the key in the result and its name in the README.
SCHEDULES = {
    "ours": "StreamVLM (packed)",
    "blocking": "answer, then watch",
    "wait_k": "16 tokens per frame",
    "alternating": "taking turns",
    "two_threads": "two threads",
}
LAGS = ("median lag", "p99 lag", "longest lag", "median first token", "frames dropped")
GIVEN = {
    "sink_window": "the window",
    "notes_alone": "and notes",
    "memory": "and blocks from disk",
    "notes": "and both",
    "last_frames": "the last 4 frames",
    "sliding": "a plain sliding window",
    "uniform64": "64 frames of all so far",
    "blind": "a black picture",
    "constant": "nothing (most frequent answer)",
}
# Of a minute of stream, and then of an answer.
PRICES = ("rows of thought a minute", "rows read an answer", "rows from disk", "time an answer", "median first token")
NOTED = ("notes_alone", "notes")  # what is thought while watching is thought for these
THOUGHTS = {
    "direct": "none",
    "after": "after the question, everything in view",
    "notes": "notes while watching",
    "tracked": "notes, and keeping track of the question",
}
LIVE = {
    "snapshot": "as of its question",
    "restarted": "begun again after every frame",
    "overlapped": "live, overlapped",
    "group_decoupled": "live, group-decoupled",
    "gap_isolated": "live, gap-isolated",
}
TRIGGERS = {
    "usual": "as `watch` does by itself: a value asked for, what just happened narrated, else yes or no",
    "probe": "yes or no, asked at every change",
    "commentary": "narration that names it",
    "drop_ratio": "a large change of the picture",
}


def lag(report: dict[str, Any]) -> str:
    """Lag and throughput by schedule and number of answers, and what is predicted for larger hardware."""
    rows = [
        [SCHEDULES[key], answers, *_lags(one), f"{one['tokens_per_s']:.0f}", *_kept_up(one)]
        for answers in map(str, report["answers"])
        for key, found in report["sweep"].items()
        if (one := found.get(answers))
    ]
    limit = next(iter(report["policies"].values()))["claim"]["max_lag_limit_s"]
    text = (
        f"`{report['model']}`, a camera at {report['fps']:g} frames/s, so many answers of {report['tokens']} tokens at "
        f"a time without a break, {report['seconds']:g} s each. Perception never stalls if no frame is later than "
        f"{1e3 * limit:.0f} ms, none is dropped and at most one waits.\n\n"
    )
    thoughts = [f"{report['watches']} watches"] if report["watches"] else []
    thoughts += [name for name in ("narrate", "notes") if report[name]]
    if thoughts:
        text += f"Meanwhile, in every schedule: {', '.join(thoughts)}.\n\n"
    head = ["schedule", "answers", *LAGS, "tokens/s", "never stalls", "on"]
    return text + table(head, rows) + _predicted(report["predicted"])


def _kept_up(one: dict[str, Any]) -> tuple[str, str]:
    return "yes" if one["claim"]["holds"] else "no", one["cpu"].removesuffix(" Processor").replace("(R)", "")


def _predicted(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    rows = [[SCHEDULES[key], *_lags(one), f"{one['tokens_per_s']:.0f}"] for key, one in found["policies"].items()]
    text = (
        f"\n**Predicted, not measured** ({found['what']}): {found['fps']:g} frames/s of {found['frame_tokens']} "
        f"tokens, {found['answers']} answers of {found['tokens']} tokens at a time, {found['seconds']:g} virtual "
        "seconds.\n\n"
    )
    return text + table(["schedule", *LAGS, "tokens/s"], rows)


def _lags(one: dict[str, Any]) -> list[str]:
    times = [one[key] for key in ("p50_lag_s", "p99_lag_s", "max_lag_s", "ttft_p50_s")]
    return [*("none" if t is None else f"{1e3 * t:.0f} ms" for t in times), f"{one['forced_drops']}"]


def watches(report: dict[str, Any]) -> str:
    """Recall, false alarms, delay and cost by trigger."""
    rows = [
        [
            TRIGGERS[key],
            _percent(one["recall"]),
            "none" if one["false_alarms_per_10_min"] is None else f"{one['false_alarms_per_10_min']:.1f}",
            "none" if one["median_delay_s"] is None else f"{one['median_delay_s']:.1f} s",
            f"{one['rows_per_min']:.0f}",
        ]
        for key, one in report["triggers"].items()
    ]
    onsets = next(iter(report["triggers"].values()))["onsets"]
    text = (
        f"`{report['model']}`: {onsets} onsets in {report['worlds']} unseen worlds of {report['seconds']:g} s at "
        f"{report['fps']:g} frames/s.\n\n"
    )
    head = ["trigger", "told in time", "false alarms a watch in 10 min", "median delay", "rows a minute"]
    return text + table(head, rows)


def ablation(report: dict[str, Any]) -> str:
    """Accuracy by distance and what it costs, by what an answer is given."""
    ways = {key: report["ways"][key] for key in GIVEN if key in report["ways"]}
    cells = sorted({cell for way in ways.values() for cell in way["cells"]["official"]}, key=by_distance)
    heads = [cell.partition(", ")[2] or "in the window" for cell in cells]
    thoughts = {key: one for one in report["watchings"] for key in one["ways"]}
    rows = [
        [GIVEN[key], *(_cell(way, cell) for cell in cells), *_price(way["usage"], thoughts.get(key), key in NOTED)]
        for key, way in ways.items()
    ]
    text = (
        f"`{report['model']}`, {report['seeds']} x {report['seconds'] / 60:.0f} minutes of stream, 2 frames/s: "
        "questions about an earlier moment that is named by its time, by how far back it lies. Times include drawing "
        f"the pictures. {_watched(report)}\n\n"
    )
    return text + table(["given", *heads, *PRICES], rows)


def _watched(report: dict[str, Any]) -> str:
    """What it took to watch, each watching once."""
    told = []
    for one in report["watchings"]:
        used, minutes = one["usage"], one["minutes"]
        for_whom = ", ".join(f"*{GIVEN[key]}*" for key in one["ways"])
        rows = f"{used['tokens_in'] / minutes:.0f} rows of stream"
        told.append(f"Watched once for {for_whom}: {used['seconds'] / minutes:.2f} s and {rows} a minute.")
    return " ".join(told)


def _cell(way: dict[str, Any], cell: str) -> str:
    share = way["cells"]["official"].get(cell)
    return "" if share is None else f"{share['accuracy']:.1f} % ({share['asked']})"


def _price(used: dict[str, Any], watching: dict[str, Any] | None, noted: bool) -> list[str]:
    if not used:
        return [""] * len(PRICES)
    first, count = used.get("ttft_s", {}).get("p50"), used["samples"]
    thought = watching["usage"]["rows_thought"] / watching["minutes"] if watching and noted else 0.0
    return [
        f"{thought:.0f}",
        f"{(used['tokens_in'] + used['rows_asked']) / count:.0f}",
        f"{used['rows_recalled'] / count:.0f}",
        f"{1e3 * used['seconds_per_sample']:.0f} ms",
        "" if first is None else f"{1e3 * first:.0f} ms",
    ]


def thoughts(report: dict[str, Any]) -> str:
    """Tokens after the question, accuracy and what was spent before, by when the thinking was done."""
    rows = [
        [
            THOUGHTS[key],
            f"{_percent(one['accuracy'])} ({one['right']}/{one['asked']})",
            f"{one['tokens_after']:.1f}",
            f"{1e3 * one['seconds_after_p50']:.0f} ms",
            f"{one['rows_before_per_min']:.0f}",
        ]
        for key, one in report["ways"].items()
    ]
    text = (
        f"`{report['model']}`: {report['questions']} questions at the end of each of {report['worlds']} streams of "
        f"{report['length']:g} s, about everything that happened, with a window of {report['window_seconds']:g} s. "
        f"{_claimed(report['claim'])}\n\n"
    )
    head = ["thinking", "accuracy", "tokens after the question", "median time to the answer", "rows before, a minute"]
    return text + table(head, rows)


def live(report: dict[str, Any]) -> str:
    """Accuracy of answers that see later frames, against those that do not."""
    rows = [
        [
            LIVE[key],
            "yes" if key in ("snapshot", "restarted") or key in report["trained_for"] else "no",
            f"{_percent(one['accuracy'])} ({one['right']}/{one['asked']})",
            _percent(one["as_snapshot"]),
            f"{one['tokens_per_answer']:.1f}",
            f"{one['saw_s_more']:.1f} s",
        ]
        for key, one in report["ways"].items()
    ]
    text = (
        f"`{report['model']}` on {report['worlds']} streams of {report['length']:g} s: questions about the present, "
        f"while a frame arrives for every token. Right is what was true when the question was asked.\n\n"
    )
    head = ["an answer", "trained for it", "accuracy", "as the snapshot's", "tokens written", "saw more of the stream"]
    return text + table(head, rows)


def _claimed(claim: dict[str, Any]) -> str:
    """Whether it was worth it, way by way."""
    found = [
        f"{THOUGHTS[way]}: {100 * one['tokens_ratio']:.0f} % of the tokens of thinking after the question, "
        f"{'at equal accuracy or better' if one['as_good'] else 'at lower accuracy'}"
        for way in THOUGHTS
        if (one := claim.get(way)) is not None
    ]
    return "; ".join(found)[:1].upper() + "; ".join(found)[1:] + "." if found else ""


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"
