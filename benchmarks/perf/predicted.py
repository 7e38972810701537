"""The schedules that lag is measured under, and what they would do on hardware that is described by a few numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from streamvlm import H200_8B, Schedule, Simulation
from streamvlm.benchmarks.measure import log, quantiles

SCHEDULES: dict[str, Schedule] = {
    "ours": "packed",
    "blocking": "blocking",
    "wait_k": "wait_k",
    "alternating": "alternating",
    "two_threads": "two_threads",
}
PREDICTED = ("ours", "blocking", "wait_k", "alternating")
PREDICTED_LENGTH = 256  # tokens of an answer


def figures(lags: Sequence[float], first: Sequence[float]) -> dict[str, float | None]:
    """Quantiles of the lags and of the times to the first token, in seconds."""
    lag = quantiles(lags, digits=4) if lags else dict.fromkeys(("p50", "p99", "max"))
    ttft = quantiles(first, digits=4) if first else dict.fromkeys(("p50", "p99"))
    return {
        "max_lag_s": lag["max"],
        "p99_lag_s": lag["p99"],
        "p50_lag_s": lag["p50"],
        "ttft_p50_s": ttft["p50"],
        "ttft_p99_s": ttft["p99"],
    }


def predict(model: Any, arguments: argparse.Namespace) -> dict[str, Any]:  # noqa: ANN401
    """The same on virtual time, at the costs of a large model on a data-centre GPU: not a measurement."""
    found: dict[str, Any] = {}
    answers = max(arguments.answers)
    for name in PREDICTED:
        run = Simulation(model, H200_8B, schedule=SCHEDULES[name])
        life = run.add(
            fps=arguments.predict_fps, tokens=arguments.predict_tokens, answers=answers, length=PREDICTED_LENGTH
        )
        run.until(arguments.predict)
        first = [a.ttft_s for a in life.asked if a.ttft_s is not None]
        found[name] = figures(life.lags, first) | {
            "tokens_per_s": round(life.tokens / run.clock.now, 2),
            "forced_drops": life.dropped,
            "backlog_max": life.eyes.backlog,
        }
        log.info("predicted, %s: %s", name, found[name])
    return {
        "what": f"virtual clock, {H200_8B.name}: predicted from a roofline, not measured",
        "fps": arguments.predict_fps,
        "frame_tokens": arguments.predict_tokens,
        "answers": answers,
        "tokens": PREDICTED_LENGTH,
        "seconds": arguments.predict,
        "policies": found,
    }
