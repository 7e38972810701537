"""Commentary written second by second, compared with another system's: LiveSports-3K CC and Inf-Streams-Eval.

Schemas as of showlab/livecc at fdaa91e and mit-han-lab/streaming-vlm at a940d8c, tested on files of our own only. The
judges those projects used decide the published numbers; ours asks in both orders and counts what it cannot read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.judge import Case, Judge, Verdict, prefer
from streamvlm.benchmarks.core.judged import JudgedBenchmark
from streamvlm.benchmarks.core.protocol import Protocol, live_only
from streamvlm.benchmarks.core.records import Alert, Result, Sample
from streamvlm.benchmarks.suites.reading import need, read_lines, write_lines

LONGEST = 8000  # characters of a reference that a judge is shown
FROM = 1000.0  # seconds: where Inf-Streams-Eval begins
PROMPT = "You are commenting live on this video{title}. Go on with the commentary in a few words.{before}"


class LiveSports(JudgedBenchmark):
    """LiveSports-3K CC: one comment on each event, against the baseline captions."""

    name = "livesports"
    title = "LiveSports-3K, commentary"
    home = "https://huggingface.co/datasets/stdKonjac/LiveSports-3K"
    average = "win rate: comparisons won over twice the number of events; a reply that is neither A nor B is a loss"
    rivals = True

    def protocols(self) -> dict[str, Protocol]:
        """Two frames and one comment a second; there is no other way to run it."""
        return live_only()

    def load(self, annotations: Path) -> list[Sample]:
        """One sample an event."""
        return [_event(record, f"event {k}") for k, record in enumerate(read_lines(annotations))]

    def verdicts(self, case: Case, judge: Judge) -> list[tuple[str, Verdict]]:
        """The whole event at once."""
        theirs = said(case.rival) if case.rival else ""
        return [("win rate", prefer(judge, case.sample.truth[:LONGEST], said(case.result), theirs))]

    def read_answers(self, path: Path, samples: Sequence[Sample]) -> dict[str, Result]:
        """Published predictions: rows of video_id, event_id, pred."""
        rows = {f"{r['video_id']}/{r['event_id']}": r for r in read_lines(path)}
        return {k: Result(k, "answered", str(r["pred"])) for k, r in rows.items()}

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """The same rows."""
        samples = {s.id: s for s in self.load(annotations)}
        rows = []
        for key, result in results.items():
            video, _, event = key.rpartition("/")
            sample = samples[key]
            assert sample.alert is not None
            rows.append(
                {"video_id": video, "event_id": event, "begin": sample.time, "end": sample.alert.until}
                | {"pred": said(result)}
            )
        return [write_lines(out / "livesports.jsonl", rows)]


class InfStreams(JudgedBenchmark):
    """Inf-Streams-Eval: comments from 1,000 s to the end of hours of video, judged window by window."""

    name = "infstreams"
    title = "Inf-Streams-Eval"
    home = "https://huggingface.co/datasets/mit-han-lab/Inf-Stream-Eval (MIT)"
    average = "win rate: comparisons won over twice the number of reference windows; silence is judged, not skipped"
    rivals = True

    def protocols(self) -> dict[str, Protocol]:
        """Two frames and one comment a second; there is no other way to run it."""
        return live_only()

    def load(self, annotations: Path) -> list[Sample]:
        """One sample a video; its windows are in the truth."""
        return [_endless(record, f"video {k}") for k, record in enumerate(read_lines(annotations))]

    def verdicts(self, case: Case, judge: Judge) -> list[tuple[str, Verdict]]:
        """Each reference window by itself."""
        found = []
        for start, stop, reference in json.loads(case.sample.truth):
            ours, theirs = (said(r, start, stop) if r else "" for r in (case.result, case.rival))
            found.append(("win rate", prefer(judge, reference[:LONGEST], ours, theirs)))
        return found

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """Rows of video, chunk_start, chunk_end and items, as the official merging reads them."""
        rows = []
        for key, result in results.items():
            items = [{"end_time": t.time, "response": t.content} for t in result.turns]
            end = items[-1]["end_time"] if items else FROM
            rows.append({"video": key, "chunk_start": FROM, "chunk_end": end, "items": items})
        return [write_lines(out / "infstreams.jsonl", rows)]


def said(result: Result | None, start: float = 0.0, stop: float = float("inf")) -> str:
    """All that was said in (start, stop]."""
    if result is None or result.status != "answered":
        return ""
    if not result.turns:
        return result.text
    return " ".join(t.content.strip() for t in result.turns if start < t.time <= stop and t.content.strip())


def _event(record: Mapping[str, Any], where: str) -> Sample:
    begin, end = (float(need(record, key, (int, float), where)) for key in ("begin", "end"))
    before = str(record.get("preasr_text") or "")
    title = str(record.get("event_title") or "")
    return Sample(
        id=f"{need(record, 'video_id', str, where)}/{need(record, 'event_id', (str, int), where)}",
        task="commentary",
        video=Path(need(record, "video", str, where)).name,
        time=begin,
        prompt=PROMPT.format(title=f", {title}" if title else "", before=f" So far: {before}" if before else ""),
        truth=need(record, "event_asr_text", str, where),
        kind="commentary",
        alert=Alert((begin,), end),
    )


def _endless(record: Mapping[str, Any], where: str) -> Sample:
    windows = [tuple(w) for w in need(record, "content", list, where) if w[1] > FROM]
    if not windows:
        raise ValueError(f"{where}: nothing of its content lies after {FROM:g} s")
    title = str(record.get("title") or "")
    return Sample(
        id=need(record, "video", str, where),
        task="commentary",
        video=Path(need(record, "video", str, where)).name,
        time=FROM,
        prompt=PROMPT.format(title=f", {title}" if title else "", before=""),
        truth=json.dumps(windows),
        kind="commentary",
        alert=Alert((FROM,), float(windows[-1][1])),
    )
