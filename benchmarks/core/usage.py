"""What a run took, next to what it scored."""

from __future__ import annotations

from typing import Any

from streamvlm.benchmarks.core.journal import Run
from streamvlm.benchmarks.measure import quantiles


def usage(run: Run) -> dict[str, Any]:
    """Seconds, frames and tokens of all samples, and the time to the first token; {} of a run without costs."""
    costs = [c for c in run.costs.values() if c.id in run.results]
    if not any(c.seconds for c in costs):
        return {}
    waits = [c.ttft_s for c in costs if c.ttft_s is not None]
    gpus = {s["machine"]["gpu"] for s in run.starts}
    return {
        "seconds": round(sum(c.seconds for c in costs), 3),
        "device": ", ".join(sorted(g for g in gpus if g)) or "cpu",
        "samples": len(costs),
        "seconds_per_sample": round(sum(c.seconds for c in costs) / len(costs), 4),
        "frames": sum(c.frames for c in costs),
        "tokens_in": sum(c.tokens_in for c in costs),
        "tokens_out": sum(c.tokens_out for c in costs),
        "rows_thought": sum(c.rows_thought for c in costs),
        "rows_asked": sum(c.rows_asked for c in costs),
        "rows_recalled": sum(c.rows_recalled for c in costs),
        **({"ttft_s": quantiles(waits, 4)} if waits else {}),
    }
