"""The parts of reading a video that can be checked without one: addresses, timelines, back-off, pacing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from media import constant_rate, number_of, write_video

from streamvlm.errors import SourceError
from streamvlm.source import Backoff, Clock, Source, SourceOptions, open_source
from streamvlm.source.address import Medium, parse_address, redact
from streamvlm.source.timeline import FileTimeline, LiveTimeline
from streamvlm.types import Frame


class SteppingClock(Clock):
    """A clock that moves only when somebody waits, or is told to."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, cancelled: Event) -> bool:
        self.waits.append(seconds)
        self.time += max(seconds, 0.0)
        return cancelled.is_set()


# --- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["0", "webcam:", "webcam:0", "/dev/video0"])
def test_the_first_camera_has_many_names(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    address = parse_address(uri)
    assert (address.medium, address.url) == (Medium.WEBCAM, "/dev/video0")


def test_cameras_have_numbers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert parse_address("webcam:1").url == "1"


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "udp", "tcp", "rtmp", "http", "https"])
def test_network_schemes_are_known(scheme: str) -> None:
    address = parse_address(f"{scheme}://host:1/live")
    assert (address.medium, address.scheme) == (Medium.NETWORK, scheme)


def test_file_addresses_and_odd_names_are_files(tmp_path: Path) -> None:
    path = tmp_path / "a b.mp4"
    path.touch()
    assert parse_address(path.as_uri()).url == str(path)
    odd = tmp_path / "concat:a.mp4"
    odd.touch()
    assert parse_address(odd).medium is Medium.FILE


def test_passwords_are_not_shown() -> None:
    assert redact("rtsp://user:p@ss@cam:554/a?b=c@d") == "rtsp://***@cam:554/a?b=c@d"
    with pytest.raises(SourceError) as caught:
        open_source("rtsp://user:secret@127.0.0.1:9/live", options=SourceOptions(open_timeout=5))
    assert "secret" not in str(caught.value)
    assert "refused" in str(caught.value)


def test_a_camera_that_is_not_there_is_a_source_error() -> None:
    with pytest.raises(SourceError, match="/dev/video77"):
        open_source("/dev/video77")


# --- timelines ----------------------------------------------------------------------------------------------


def test_file_time_continues_where_timestamps_are_missing_or_start_again() -> None:
    timeline = FileTimeline(step=0.1)
    given = [7.0, 7.1, None, 7.3, 0.0, 0.1]
    assert [timeline.place(pts) for pts in given] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_file_pictures_out_of_order_are_left_out() -> None:
    timeline = FileTimeline(step=0.1)
    assert [timeline.place(pts) for pts in (0.0, 0.5, 0.4, 0.5, 0.6)] == [0.0, 0.5, None, None, 0.6]


def test_first_live_picture_may_have_no_timestamp() -> None:
    timeline = LiveTimeline(step=0.05)
    placed = [timeline.place(pts, now) for pts, now in ((None, 10.0), (500.0, 10.001), (500.05, 10.002))]
    assert [pair and pair[0] for pair in placed] == pytest.approx([0.0, 0.05, 0.1])


def test_live_source_without_timestamps_goes_by_the_clock() -> None:
    timeline = LiveTimeline()
    placed = [timeline.place(None, now) for now in (10.0, 10.4, 11.0)]
    assert [pair and pair[0] for pair in placed] == pytest.approx([0.0, 0.4, 1.0])


def test_live_time_goes_on_by_the_clock_after_a_loss_and_reports_it_once() -> None:
    timeline = LiveTimeline(step=0.1)
    assert timeline.place(50.0, 10.0) == (0.0, 0.0)
    assert timeline.place(50.1, 10.1) == pytest.approx((0.1, 0.0))
    timeline.cut()
    assert timeline.place(3.0, 15.0) == pytest.approx((5.0, 4.8))
    assert timeline.place(3.1, 15.2) == pytest.approx((5.1, 0.0))


def test_live_timestamps_that_leap_are_not_believed() -> None:
    timeline = LiveTimeline(step=0.1)
    given = [(50.0, 10.0), (50.1, 10.1), (99999.0, 10.2), (99999.1, 10.3), (2.0, 10.4)]
    times = [pair[0] for pair in (timeline.place(*at) for at in given) if pair]
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


# --- options ------------------------------------------------------------------------------------------------


def test_back_off_grows_to_its_limit() -> None:
    backoff = Backoff(initial=0.5, factor=2, longest=3)
    assert [backoff.delay(attempt) for attempt in range(5)] == [0.5, 1, 2, 3, 3]
    assert backoff.delay(10**6) == 3


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: SourceOptions(backend="opencv"), "opencv"),
        (lambda: SourceOptions(read_timeout=0), "timeouts"),
        (lambda: SourceOptions(max_broken=0), "max_broken"),
        (lambda: Backoff(initial=2, longest=1), "longest"),
        (lambda: Backoff(factor=0.5), "factor"),
        (lambda: Backoff(attempts=-1), "attempts"),
        (lambda: open_source("http://host/", options=SourceOptions(listen=True)), "listen"),
    ],
)
def test_wrong_options_are_the_callers_mistake(make: object, name: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=name):
        make()


# --- pacing -------------------------------------------------------------------------------------------------


def test_paced_frames_are_released_at_their_time(tmp_path: Path) -> None:
    clock = SteppingClock()
    path = write_video(tmp_path / "v.mp4", constant_rate(2.0))
    with open_source(path, realtime=True, options=SourceOptions(clock=clock)) as source:
        seen = [(number_of(frame.data), frame.captured, clock.now()) for frame in source]
        assert (source.live, source.stats.frames) == (False, 4)
        assert source.duration == pytest.approx(2.0)
    numbers, captured, released = zip(*seen, strict=True)
    assert numbers == (0, 15, 30, 45)
    assert captured == pytest.approx((1000.0, 1000.5, 1001.0, 1001.5))
    assert released == pytest.approx(captured)


def test_a_reader_that_falls_behind_gets_frames_at_once_and_can_tell(tmp_path: Path) -> None:
    clock = SteppingClock()
    path = write_video(tmp_path / "v.mp4", constant_rate(2.0))
    lags = []
    with open_source(path, realtime=True, options=SourceOptions(clock=clock)) as source:
        for frame in source:
            assert frame.captured is not None
            lags.append(clock.now() - frame.captured)
            clock.time += 0.7
    assert lags == pytest.approx([0.0, 0.2, 0.4, 0.6])


def test_close_wakes_a_reader_that_waits_for_its_time(tmp_path: Path) -> None:
    waiting = Event()

    class AnnouncingClock(Clock):
        def wait(self, seconds: float, cancelled: Event) -> bool:
            if seconds > 100:
                waiting.set()
            return super().wait(seconds, cancelled)

    path = write_video(tmp_path / "v.mkv", [0.0, 0.1, 3600.0])
    source = open_source(path, realtime=True, options=SourceOptions(clock=AnnouncingClock()))
    frames: list[Frame] = []
    reader = Thread(target=lambda: frames.extend(source))
    reader.start()
    assert waiting.wait(30)
    source.close()
    reader.join(30)
    assert not reader.is_alive()
    assert len(frames) == 1


class BlockedSource(Source):
    """A source whose reader is inside FFmpeg when it is closed."""

    def __init__(self) -> None:
        self.inside, self.leave = Event(), Event()
        self.released_while_reading = False
        self.released = 0
        super().__init__("blocked", live=True)

    def _read(self) -> Iterator[Frame]:
        self.inside.set()
        self.leave.wait(30)
        self.released_while_reading = self.released > 0
        yield Frame(torch.zeros(3, 2, 2, dtype=torch.uint8), 0.0, 0.5)

    def _release(self) -> None:
        self.released += 1


def test_a_reader_inside_ffmpeg_releases_the_source_itself_on_its_way_out() -> None:
    source = BlockedSource()
    frames: list[Frame] = []
    reader = Thread(target=lambda: frames.extend(source))
    reader.start()
    assert source.inside.wait(30)
    source.close()
    source.leave.set()
    reader.join(30)
    assert not reader.is_alive()
    assert frames == []
    assert source.released >= 1
    assert not source.released_while_reading
