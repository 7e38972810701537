"""The live chat under load: how soon frames of a webcam reach the engine while answers stream, and what the app costs.

A headless Chromium (`make test-browser` installs it) plays a rendered StreamWorld clip as its webcam into the real page
on loopback, and keeps questions open all the time. Delay is from the moment the page took a picture to the moment the
engine's reading thread has it, decoded. The app's cost is the CPU time of its own threads: the web server's loop and
workers, the thread that follows the stream, and the engine's reading thread, which decodes the pictures. The threads
of the model (engine, encoder, spilling, search, and those of torch) are reported apart, and so are the delays to the
cache, which depend on the model. Chromium shares the machine and is in neither.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from streamvlm import Agent, Frame, SamplingConfig, WatchConfig, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, log, make_parser, positive, quantiles
from streamvlm.demo.chat.access import Access
from streamvlm.demo.chat.app import Chat, ChatOptions
from streamvlm.demo.chat.run import Run
from streamvlm.demo.chat.session import Session
from streamvlm.world.story import Story
from streamvlm.world.video import frames

WIDTH, HEIGHT, RATE, SECONDS = 640, 480, 20, 4  # of the clip
LEAST_FPS, LONGEST, MOST = 10.0, 0.1, 0.15  # frames a second; seconds, p95; of one core
APP = ("chat-", "asyncio_", "AnyIO", "streamvlm-ingest")  # how the names of the app's threads begin
QUESTION = "what color is the circle?"
PATIENCE = 60_000  # milliseconds
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
KEEP_ASKING = """([text, answers]) => {
  const over = ".entry.question:not([data-status=waiting]):not([data-status=writing])";
  let asked = 0;
  setInterval(() => {
    for (; asked - document.querySelectorAll(over).length < answers; asked += 1) streamvlm.ask(text);
  }, 200);
}"""


def film(seed: int, to: Path) -> Path:
    """A world as an uncompressed clip, as large as a webcam's."""
    import av

    with to.open("wb") as clip:
        clip.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420mpeg2\n".encode())
        for _, picture in frames(Story(seed), SECONDS, RATE):
            frame = av.VideoFrame.from_ndarray(picture.copy(), format="rgb24").reformat(WIDTH, HEIGHT, "yuv420p")
            clip.write(b"FRAME\n" + frame.to_ndarray().tobytes())
    return to


@contextmanager
def serving(chat: Chat) -> Iterator[str]:
    """The chat on a port of this machine; gives its address."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(chat.app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), name="chat-server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def watched(clip: Path, url: str) -> Iterator[Any]:
    """The page with its camera on."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        flags = [*FLAGS, f"--use-file-for-fake-video-capture={clip}"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_context(permissions=["camera"]).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.wait_for_function("window.streamvlm?.link.ready")
        page.get_by_role("button", name="My camera").click()
        page.wait_for_function("streamvlm.stage.state.now > 1")
        yield page
        browser.close()


@dataclass(slots=True, eq=False)
class Ear:
    """What reached the engine and its cache while it listens."""

    run: Run
    delays: list[float] = field(default_factory=list)  # seconds from the lens to the engine
    open: list[int] = field(default_factory=list)  # answers being written or waited for, four times a second

    def listen(self) -> None:
        """Look on at every frame from now on."""
        before = self.run.feed.look

        def look(frame: Frame) -> None:
            if frame.captured is not None:
                self.delays.append(time.monotonic() - frame.captured)
            before(frame)

        self.run.feed.look = look


def cpu_seconds() -> tuple[float, float]:
    """CPU time so far of the app's threads, and of the model's: all others but ours."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    app = model = 0.0
    for row in psutil.Process().threads():
        name, used = names.get(row.id, ""), row.user_time + row.system_time
        if name.startswith(APP):
            app += used
        elif name != "MainThread":
            model += used
    return app, model


def observe(page: Any, session: Session, arguments: argparse.Namespace) -> dict[str, Any]:  # noqa: ANN401
    """Keep asking, listen, and count."""
    run, transcript = session.run, session.transcript
    assert run is not None
    page.evaluate(KEEP_ASKING, [QUESTION, arguments.answers])
    page.wait_for_timeout(1000 * arguments.warmup)
    ear = Ear(run)
    ear.listen()
    said = len(transcript.entries)
    before, begun, dropped = cpu_seconds(), time.monotonic(), run.stream.stats.frames_dropped
    while time.monotonic() < begun + arguments.seconds:
        page.wait_for_timeout(250)
        ear.open.append(page.evaluate("streamvlm.stage.state.open"))
    seconds, after = time.monotonic() - begun, cpu_seconds()
    lags = [row["lag_ms"] for row in run.instruments.rows(int(seconds)) if row["lag_ms"] is not None]
    fps = len(ear.delays) / seconds
    to_engine = quantiles(ear.delays, digits=4) | {"p95": round(sorted(ear.delays)[int(0.95 * len(ear.delays))], 4)}
    app = (after[0] - before[0]) / seconds
    return {
        "fps_reached": round(fps, 2),
        "to_engine_s": to_engine,
        "to_cache_worst_of_a_second_ms": quantiles(lags, digits=1) if lags else None,
        "app_cores": round(app, 4),
        "model_cores": round((after[1] - before[1]) / seconds, 4),
        "answers_open": round(sum(ear.open) / len(ear.open), 2),
        "answers": dict(Counter(entry.status for entry in transcript.entries[said:])),  # asked while measuring
        "frames_dropped": run.stream.stats.frames_dropped - dropped,
        "holds": {
            "fps_10": fps >= LEAST_FPS,
            "p95_100_ms": to_engine["p95"] <= LONGEST,
            "app_15_percent": app <= MOST,
        },
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One visitor with a webcam who never stops asking."""
    model = load_model(begin(arguments))
    watch = WatchConfig(fps=arguments.fps, max_answer_tokens=arguments.tokens)
    sampling = SamplingConfig(min_new_tokens=arguments.tokens - 1)
    with tempfile.TemporaryDirectory() as folder, Agent(model, watch=watch, sampling=sampling) as agent:
        chat = Chat(agent, ChatOptions(Path(folder) / "sessions", Access(b"a secret of benchmarks")))
        with serving(chat) as url, watched(film(arguments.seed, Path(folder) / "camera.y4m"), url) as page:
            found = observe(page, chat.sessions.awake[0], arguments)
    log.info("%s", found)
    names = ("model", "fps", "answers", "tokens", "seconds", "warmup", "threads")
    return {**{name: getattr(arguments, name) for name in names}, "picture": [WIDTH, HEIGHT], **found}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Delay of webcam frames into the engine, and what the live chat costs.")
    parser.add_argument("--fps", type=float, default=12.0, help="pictures the page is to send a second")
    parser.add_argument("--answers", type=positive, default=4, help="that are open all the time")
    parser.add_argument("--tokens", type=positive, default=64, help="of each answer")
    parser.add_argument("--seconds", type=float, default=20.0, help="to measure")
    parser.add_argument("--warmup", type=float, default=5.0, help="seconds before that")
    parser.add_argument("--seed", type=int, default=7, help="of the world the camera shows")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="chat")


if __name__ == "__main__":
    main()
