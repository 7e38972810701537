"""Session: one visitor's side of the chat. Every method may be called from any thread."""

from __future__ import annotations

import math
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from streamvlm import Agent, BlockStore, FingerprintError, Stream, StreamEvent, StreamVLMError
from streamvlm.demo.chat.addresses import without_credentials
from streamvlm.demo.chat.board import Board
from streamvlm.demo.chat.hearing import hear
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.refusals import Refused
from streamvlm.demo.chat.run import Run
from streamvlm.demo.chat.saving import Saved, load, save
from streamvlm.demo.chat.sources import Choice, Sources
from streamvlm.demo.chat.transcript import Entry, Transcript

REACH = 1.0  # seconds on either side of a moment that is asked about


class Session:
    """A transcript and what is being watched for it.

    Args:
        identity: names its folder; says nothing about the visitor's cookie.
        folder: holds everything there is of it.
    """

    def __init__(self, identity: str, folder: Path, agent: Agent, sources: Sources, limits: Limits) -> None:
        saved = load(folder) or Saved()
        self.identity = identity
        self.folder = folder
        self.transcript = Transcript(saved.entries)
        self.board = Board(saved.watches, limits.watches)
        self.narrating = False
        self.load = ""  # what is given up to keep up with the source; empty: nothing
        self.runs = saved.runs
        self.run: Run | None = None
        self.pages = 0  # open at this moment
        self.used = time.time()
        self.deleted = False
        self.upload: Path | None = folder / "upload" if (folder / "upload").is_file() else None
        self._agent = agent
        self._sources = sources
        self._limits = limits
        self._remembered: Stream | None = None  # the newest run's memory, while nothing is watched
        self._watched = saved.source  # key of what is watched, or was last
        self._changing = threading.RLock()
        self._saved = self._marks()

    # What is watched

    @property
    def watching(self) -> bool:
        """Whether a source is open, or has ended and can still be asked about."""
        return self.run is not None

    def start(self, choice: Choice) -> Run:
        """Watch something else, or go on with the live source that was watched last, in the memory it left.

        Raises:
            Refused: it cannot be opened.
        """
        feed = self._sources.open(choice, self._agent.watch_config.fps, self._limits)
        with self._changing:
            self._end_run()
            self._forget_past()
            again = self.runs > 0 and choice.key == self._watched != "" and self._memory(self.runs).is_dir()
            self.runs += 0 if again else 1
            try:
                self.run = Run(self.runs, choice, feed, self._agent, self._memory(self.runs), self._limits, self._heard)
            except FingerprintError:
                if not again:
                    raise
                self._watched = ""  # another model watches now, so that memory cannot go on
                return self.start(choice)
            except StreamVLMError as error:
                raise Refused(f"{choice.name} cannot be watched: {without_credentials(str(error))}") from None
            self._watched = choice.key
            self.board.attach(self.run.stream)
            if self.narrating:
                self.run.stream.narrate()
        what = "Watching on: what was seen before is remembered." if again else f"Watching {choice.name}."
        self.transcript.add("notice", what, run=self.runs)
        return self.run

    def stop(self) -> None:
        """Stop watching; what was seen stays in memory."""
        with self._changing:
            if self.run is not None:
                self._end_run()
                self.transcript.add("notice", "Stopped watching.", run=self.runs)

    def _end_run(self) -> None:
        if self.run is not None:
            self.board.attach(None)
            self.load = ""
            self.run.close()
            self.transcript.follow()
            self.run = None

    def _heard(self, run: Run, event: StreamEvent) -> None:
        """Runs on the thread that follows the stream."""
        hear(self, run, event)

    def narrate(self, on: bool) -> None:
        """Have what happens said, or not."""
        with self._changing:
            self.narrating = on
            if self.run is not None and not self.run.stream.closed:
                self.run.stream.narrate(1.0 if on else None)

    # Questions

    def ask(self, text: str, about: float | None = None) -> Entry:
        """Ask about what is seen now, or about a moment `about` of the past, in seconds of the stream.

        Raises:
            Refused: nothing to ask, nothing to ask about, or too much is open already.
        """
        text = text.strip()
        if not text:
            raise Refused("Type a question first.")
        if len(text) > self._limits.question_chars:
            raise Refused(f"The question is longer than {self._limits.question_chars} characters.")
        self.transcript.follow()
        if len(self.transcript.waiting) >= self._limits.questions:
            raise Refused(f"{self._limits.questions} questions are open. Stop one, or wait for an answer.")
        with self._changing:
            stream = self._stream()
            about = self._past(stream, about)
            between = None if about is None else (max(0.0, about - REACH), about + REACH)
            try:
                answer = stream.ask(text, between=between)
            except (ValueError, StreamVLMError) as error:
                raise Refused(f"This cannot be asked: {error}.") from None
            entry = self.transcript.add("question", text, run=self.runs, answer=answer)
            entry.about = about
        self.used = time.time()
        return entry

    def _past(self, stream: Stream, about: float | None) -> float | None:
        """The moment if it has left the window and can be brought back, else None: it is still in view."""
        if about is None or stream.config.store is None or not math.isfinite(about):
            return None
        if self.run is None:
            return max(0.0, about)
        now = stream.now or 0.0
        return max(0.0, about) if about < now - stream.config.window_seconds else None

    def _stream(self) -> Stream:
        if self.run is not None:
            return self.run.stream
        if self._remembered is None:
            store = self._memory(self.runs)
            if not self.runs or not store.is_dir():
                raise Refused("Choose something to watch first.")
            try:
                self._remembered = self._agent.resume(store)
            except StreamVLMError as error:
                raise Refused(f"What was seen cannot be remembered: {error.__class__.__name__}.") from error
        return self._remembered

    def cancel(self, number: int) -> None:
        """Stop the answer of that entry, if it is still being written."""
        entry = self.transcript.find(number)
        answer = entry.answer if entry is not None else None
        if answer is not None:
            answer.cancel()

    def cancel_all(self) -> None:
        """Stop every answer being written."""
        for entry in self.transcript.waiting:
            self.cancel(entry.number)

    def again(self, number: int) -> None:
        """Ask a question again, of now.

        Raises:
            Refused: as `ask`.
        """
        entry = self.transcript.find(number)
        if entry is not None and entry.kind == "question":
            self.ask(entry.text, entry.about)

    # Looking back

    def picture(self, run: int, at: float) -> tuple[float, bytes] | None:
        """The picture kept of that moment of that run, with its own time."""
        watched = self.run
        try:
            if watched is not None and watched.number == run:
                return watched.stream.picture(at)
            with BlockStore.open(self._memory(run) / "blocks", readonly=True) as kept:
                return kept.picture_at(at)
        except StreamVLMError:  # closed meanwhile, never there, or damaged
            return None

    def _memory(self, run: int) -> Path:
        return self.folder / "runs" / str(int(run)) / "memory"

    # Keeping

    @property
    def idle_since(self) -> float:
        """Seconds since 1970 of the last sign of life; the future while a page is open."""
        return math.inf if self.pages else self.used

    def touch(self) -> None:
        """A sign of life."""
        self.used = time.time()

    def save(self) -> None:
        """Write down what was said, if anything was."""
        with self._changing:
            entries, watches, marks = self.transcript.entries, self.board.rows(), self._marks()
            if marks != self._saved:
                save(self.folder, Saved([entry.row() for entry in entries], self.runs, watches, self._watched))
                self._saved = marks

    def _marks(self) -> object:
        """What is different whenever there is something new to save."""
        return self.transcript.version, self.board.conditions()

    def put_away(self) -> None:
        """Stop everything and save; the session comes back when it is asked for again."""
        with self._changing:
            self._end_run()
            self._forget_past()
            self.save()

    def _forget_past(self) -> None:
        if self._remembered is not None:
            self._remembered.close()
            self._remembered = None
            self.transcript.follow()

    def delete(self) -> None:
        """Stop everything and delete all of it: transcript, pictures, upload, keys and values."""
        with self._changing:
            self.deleted = True
            self.put_away()
            shutil.rmtree(self.folder, ignore_errors=True)

    def size(self) -> int:
        """Bytes on disk."""
        found = 0
        for path in self.folder.rglob("*"):
            try:
                found += path.stat().st_size if path.is_file() else 0
            except OSError:  # gone meanwhile
                continue
        return found

    def state(self) -> dict[str, Any]:
        """What a page shows besides the transcript."""
        run = self.run
        if run is None:
            memory = self._memory(self.runs).is_dir()
            return {"run": self.runs, "source": None, "memory": memory, "narrating": self.narrating}
        stream = run.stream
        return {
            "run": run.number,
            "source": run.choice.name,
            "kind": run.choice.kind,
            "now": stream.now,
            "ended": stream.ended,
            "fps": stream.config.fps,
            "window": stream.config.window_seconds,
            "store": stream.config.store is not None,
            "duration": run.feed.duration,
            "playhead": round(getattr(run.feed, "playhead", 0.0), 2),
            "open": len(self.transcript.waiting),
            "narrating": self.narrating,
            "notes": stream.config.notes,
            "load": self.load,
        }
