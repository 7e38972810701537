"""Local files decoded by several threads at once, each a stretch between keyframes; the frames come in order."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Condition, Thread

from av.error import FFmpegError

from streamvlm.errors import SourceError
from streamvlm.source.address import Address
from streamvlm.source.base import Source
from streamvlm.source.container import open_container
from streamvlm.source.options import SourceOptions
from streamvlm.source.pixels import RgbConverter
from streamvlm.source.reader import TooManyBroken, VideoReader
from streamvlm.source.sampling import Sampler
from streamvlm.source.stretches import Cutting, Stretch, cut
from streamvlm.types import Frame

log = logging.getLogger(__name__)


def open_parallel(address: Address, fps: float | None, options: SourceOptions) -> ParallelSource | None:
    """The source, or None where the file must be decoded in one go."""
    with VideoReader(address.shown, open_container(address, options), options.max_broken, lambda: None) as reader:
        cutting = cut(reader, fps)
        duration, missing = reader.duration, reader.missing()
    if cutting is None:
        log.info("%s: decoded by one thread, it cannot be cut between keyframes", address.shown)
        return None
    return ParallelSource(address, fps, options, cutting, (duration, missing > 0))


@dataclass(slots=True, eq=False)
class _Shelf:
    """The frames of one stretch that are ready."""

    stretch: Stretch
    frames: deque[Frame] = field(default_factory=deque)
    nbytes: int = 0
    done: bool = False


class ParallelSource(Source):
    """The frames that `FiniteSource` would give, to the bit. A stretch that is damaged costs its frames only.

    Worker i decodes stretches i, i + n, …; it stops when its pictures fill its share of `ahead_bytes`.
    """

    def __init__(
        self,
        address: Address,
        fps: float | None,
        options: SourceOptions,
        cutting: Cutting,
        length: tuple[float | None, bool],
    ) -> None:
        self._address = address
        self._fps = fps
        self._options = options
        self._cutting = cutting
        self._truncated = length[1]
        self._shelves = [_Shelf(stretch) for stretch in cutting.stretches]
        self._changed = Condition()
        self._failure: Exception | None = None
        self._workers: list[Thread] = []
        super().__init__(address.shown, duration=length[0])

    def _read(self) -> Iterator[Frame]:
        reached, seen = 0.0, False
        for number in range(min(self._options.workers, len(self._shelves))):
            worker = Thread(target=self._work, args=(number,), name=f"streamvlm-decode-{number}", daemon=True)
            self._workers.append(worker)
            worker.start()
        for shelf in self._shelves:
            while (frame := self._take(shelf)) is not None:
                reached, seen = frame.pts, True
                yield frame
        if self._closed.is_set():
            return
        if not seen:
            raise SourceError(self.uri, f"no picture could be decoded: {self.stats.packets_broken} packets are broken")
        if self._truncated:
            self._mark_truncated(reached)

    def _take(self, shelf: _Shelf) -> Frame | None:
        """The next frame of a stretch; None after its last."""
        with self._changed:
            self._changed.wait_for(lambda: shelf.frames or shelf.done or self._failure or self._closed.is_set())
            if self._failure is not None:
                raise self._failure
            if self._closed.is_set() or not shelf.frames:
                return None
            frame = shelf.frames.popleft()
            shelf.nbytes -= frame.data.nbytes
            self._changed.notify_all()
            return frame

    def _put(self, shelf: _Shelf, frame: Frame) -> bool:
        """Wait for room; False once the source is closed."""
        share = self._options.ahead_bytes // self._options.workers
        with self._changed:
            self._changed.wait_for(lambda: shelf.nbytes < share or self._closed.is_set())
            shelf.frames.append(frame)
            shelf.nbytes += frame.data.nbytes
            self._changed.notify_all()
        return not self._closed.is_set()

    def _work(self, number: int) -> None:
        try:
            self._decode(self._shelves[number :: self._options.workers])
        except Exception as error:  # noqa: BLE001 - a thread's error must reach whoever reads
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _decode(self, shelves: list[_Shelf]) -> None:
        container = open_container(self._address, self._options)
        with VideoReader(self.uri, container, self._options.max_broken, self._note_broken) as reader:
            reader.decode_alone()
            rgb = RgbConverter()
            for shelf in shelves:
                try:
                    for frame in self._frames_of(shelf.stretch, reader, rgb):
                        if not self._put(shelf, frame):
                            return
                except (FFmpegError, TooManyBroken) as error:
                    log.warning("%s: a stretch is damaged: %s", self.uri, type(error).__name__)
                    self._note_broken()
                with self._changed:
                    shelf.done = True
                    self._changed.notify_all()

    def _frames_of(self, stretch: Stretch, reader: VideoReader, rgb: RgbConverter) -> Iterator[Frame]:
        sampler, last = Sampler(self._fps), -1.0
        reader.seek(stretch.seek)
        for picture in reader.pictures():
            if self._closed.is_set():
                return
            if picture is None or picture.pts is None or picture.pts < stretch.start:
                continue
            if not stretch.holds(picture.pts):
                return  # pictures come in the order in which they are shown
            pts = self._cutting.seconds(picture.pts)
            if pts <= last:
                continue
            last = pts
            here = stretch.wanted is None or sampler.number(pts) in stretch.wanted
            if here and sampler.takes(pts):
                yield Frame(rgb(picture), pts, 1 / self._fps if self._fps else reader.shown_for(picture))

    def _note_broken(self) -> None:
        with self._changed:
            self._count_broken()

    def close(self) -> None:
        """Stop reading and decoding. Any thread, any number of times."""
        super().close()
        with self._changed:
            self._changed.notify_all()

    def _release(self) -> None:
        with self._changed:
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()
