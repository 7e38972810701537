"""Time expressions in questions."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamvlm.retrieval.durations import clock, duration, number
from streamvlm.retrieval.spans import time_spans

NOW = 10_000.0
HOUR = 3600.0

NAMED: list[tuple[str, tuple[float, float], str]] = [
    ("What was at the centre at 2:10?", (128, 132), "at 2:10"),
    ("What was visible at 1:02:03?", (3721, 3725), "at 1:02:03"),
    ("What did you see at 130 s?", (128, 132), "at 130 s"),
    ("Was there a circle at 5 seconds?", (3, 7), "at 5 seconds"),
    ("At 0:05.5, what was written?", (3.5, 7.5), "At 0:05.5"),
    ("What was there @2:10?", (128, 132), "@2:10"),
    ("Where was it at around 2:10?", (120, 140), "at around 2:10"),
    ("Where was it around 2:10?", (120, 140), "around 2:10"),
    ("Where was it at exactly 90 seconds?", (88, 92), "at exactly 90 seconds"),
    ("Which shape was there at t=130 s?", (128, 132), "at t=130 s"),
    ("What was it at twenty-five seconds?", (23, 27), "at twenty-five seconds"),
    ("What was it at 2m10s?", (128, 132), "at 2m10s"),
    ("At 1 hour 2 minutes and 3 seconds, what?", (3721, 3725), "At 1 hour 2 minutes and 3 seconds"),
    ("Was it red at five minutes?", (290, 310), "at five minutes"),
    ("Was it red at one and a half minutes?", (80, 100), "at one and a half minutes"),
    ("Was it red at half an hour?", (1740, 1860), "at half an hour"),
    ("Was it red at the 5 minute mark?", (290, 310), "at the 5 minute mark"),
    ("Was it red at the five-minute mark?", (290, 310), "at the five-minute mark"),
    ("Was it red 5 minutes into the video?", (290, 310), "5 minutes into the video"),
    ("Two minutes in, what moved?", (110, 130), "Two minutes in"),
    ("What happened at minute 5?", (300, 360), "at minute 5"),
    ("What happened in the third minute?", (120, 180), "in the third minute"),
    ("What happened in the 2nd hour?", (HOUR, 2 * HOUR), "in the 2nd hour"),
    ("What happened between 1:00 and 2:00?", (60, 120), "between 1:00 and 2:00"),
    ("What happened between 2:00 and 1:00?", (60, 120), "between 2:00 and 1:00"),
    ("What happened from 1:00 to 2:00?", (60, 120), "from 1:00 to 2:00"),
    ("What happened from 1:00 until 2:00?", (60, 120), "from 1:00 until 2:00"),
    ("What happened 1:00\u20132:00?", (60, 120), "1:00\u20132:00"),
    ("How many between 10 and 20 seconds?", (10, 20), "between 10 and 20 seconds"),
    ("How many from five to ten minutes?", (300, 600), "from five to ten minutes"),
    ("What moved between one and two hours ago?", (NOW - 2 * HOUR, NOW - HOUR), "between one and two hours ago"),
    ("Between 1 minute and 2 minutes, what moved?", (60, 120), "Between 1 minute and 2 minutes"),
    ("From the start to 1:00, what moved?", (0, 60), "From the start to 1:00"),
    ("What moved from 2:00 to the end?", (120, NOW), "from 2:00 to the end"),
    ("What moved from 2:00 onwards?", (120, NOW), "from 2:00 onwards"),
    ("What appeared in the first minute?", (0, 60), "in the first minute"),
    ("What appeared in the first 30 seconds?", (0, 30), "the first 30 seconds"),
    ("What appeared in the opening ten seconds?", (0, 10), "the opening ten seconds"),
    ("What appeared in the last ten minutes?", (NOW - 600, NOW), "the last ten minutes"),
    ("What appeared in the past hour?", (NOW - HOUR, NOW), "the past hour"),
    ("What appeared during the last half hour?", (NOW - 1800, NOW), "the last half hour"),
    ("What appeared in the last hour and a half?", (NOW - 1.5 * HOUR, NOW), "the last hour and a half"),
    ("Did it move within the last 5 minutes?", (NOW - 300, NOW), "the last 5 minutes"),
    ("What colour was it an hour ago?", (NOW - 1.1 * HOUR, NOW - 0.9 * HOUR), "an hour ago"),
    ("What was there 5 minutes ago?", (NOW - 330, NOW - 270), "5 minutes ago"),
    ("Two hours ago, what was on?", (NOW - 2.2 * HOUR, NOW - 1.8 * HOUR), "Two hours ago"),
    ("What was on a few minutes ago?", (NOW - 198, NOW - 162), "a few minutes ago"),
    ("What was on a couple of minutes ago?", (NOW - 132, NOW - 108), "a couple of minutes ago"),
    ("What was on 3 seconds ago?", (NOW - 5, NOW - 1), "3 seconds ago"),
    ("Did it move less than 5 minutes ago?", (NOW - 300, NOW), "less than 5 minutes ago"),
    ("Did it move more than an hour ago?", (0, NOW - HOUR), "more than an hour ago"),
    ("What moved before 3:00?", (0, 180), "before 3:00"),
    ("What moved by 3:00?", (0, 180), "by 3:00"),
    ("What moved until two minutes?", (0, 120), "until two minutes"),
    ("What moved right before 3:00?", (170, 180), "right before 3:00"),
    ("What moved after 1:30?", (90, NOW), "after 1:30"),
    ("What has moved since 1:30?", (90, NOW), "since 1:30"),
    ("What moved just after 1:30?", (90, 100), "just after 1:30"),
    ("What moved before 3:00 and after 1:30?", (90, 180), "before 3:00 and after 1:30"),
    ("What moved after 1:30 but before 3:00?", (90, 180), "after 1:30 but before 3:00"),
    ("What moved 30 seconds after 2:00?", (147, 153), "30 seconds after 2:00"),
    ("What moved 10 seconds before the end?", (NOW - 12, NOW - 8), "10 seconds before the end"),
    ("What moved 10 seconds from the end?", (NOW - 12, NOW - 8), "10 seconds from the end"),
    ("What was there at the beginning?", (0, 60), "at the beginning"),
    ("What was there at the start of the video?", (0, 60), "at the start of the video"),
    ("At first, what was there?", (0, 60), "At first"),
    ("What was there initially?", (0, 60), "initially"),
    ("What was there at the end?", (NOW - 60, NOW), "at the end"),
    ("What moved halfway through?", (4000, 6000), "halfway through"),
    ("What happened just now?", (NOW - 10, NOW), "just now"),
    ("What happened a moment ago?", (NOW - 10, NOW), "a moment ago"),
    ("How many shapes so far?", (0, NOW), "so far"),
    ("How many shapes since the beginning?", (0, NOW), "since the beginning"),
    ("How many shapes up to now?", (0, NOW), "up to now"),
]

NOT_TIMES = [
    "",
    "How many circles are there?",
    "Is the number 12 visible?",
    "Are there 3 circles?",
    "What is at the top?",
    "Is there a second circle?",
    "What changed after a second circle appeared?",
    "What was the second shape?",
    "What was there after 3 circles?",
    "Does it go from left to right?",
    "Are there from 3 to 5 circles?",
    "Is it between the circle and the square?",
    "Is the aspect ratio 16:9?",
    "How long is 5 seconds?",
    "It lasted about 5 seconds, did it not?",
    "Does it move every 5 seconds?",
    "Does it blink at 5 second intervals?",
    "Is it at 5 m distance?",
    "Does it run at 60 fps?",
    "What happens at 3:00 pm?",
    "What happened at 10 o'clock?",
    "What happened yesterday?",
    "Who stands at the end of the street?",
    "Who sings at the beginning of the song?",
    "Is it so far away?",
    "Was it love at first sight?",
    "What is on the last slide?",
    "What is now in the middle?",
    "Was that version 1:2:3:4?",
]


@pytest.mark.parametrize(("question", "span", "words"), NAMED)
def test_a_time_expression_becomes_a_span(question: str, span: tuple[float, float], words: str) -> None:
    (found,) = time_spans(question, NOW)
    assert found.span == pytest.approx(span)
    assert (found.words, found.question) == (words, question)


@pytest.mark.parametrize("question", NOT_TIMES)
def test_what_is_no_time_gives_no_span(question: str) -> None:
    assert time_spans(question, NOW) == ()


def test_several_times_are_alternatives_in_the_order_named() -> None:
    found = time_spans("Was it there at 5:00 or at 2:10?", NOW)
    assert [f.span for f in found] == [(298, 302), (128, 132)]


def test_spans_are_cut_where_the_stream_begins_and_where_it_is_now() -> None:
    assert time_spans("in the last ten minutes", 60.0)[0].span == (0, 60)
    assert time_spans("at 1 second", 60.0)[0].span == (0, 3)
    assert time_spans("in the first hour", 60.0)[0].span == (0, 60)
    assert time_spans("at the beginning", 30.0)[0].span == (0, 10)


def test_what_has_not_happened_or_lies_before_the_stream_keeps_a_span_that_finds_nothing() -> None:
    assert time_spans("at 5:00", 60.0)[0].span == (298, 302)
    assert time_spans("an hour ago", 60.0)[0].stop < 0


@pytest.mark.parametrize("now", [-1.0, math.nan, math.inf])
def test_now_must_be_a_time(now: float) -> None:
    with pytest.raises(ValueError, match="now is"):
        time_spans("at 2:10", now)


def test_numbers_and_durations() -> None:
    assert number("twenty-five") == 25
    assert number("a hundred") == 100
    assert number("one and a half") == 1.5
    assert clock("1:02:03.5") == 3723.5
    assert duration("an hour and a half") == (5400, 3600)
    assert duration("1h2m3s") == (3723, 1)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_any_clock_time_is_found(hours: int, minutes: int, seconds: int) -> None:
    time = 3600 * hours + 60 * minutes + seconds
    for text in {f"{hours}:{minutes:02}:{seconds:02}", f"{time // 60}:{seconds:02}" if time < 60_000 else "0:00"}:
        (found,) = time_spans(f"What was at the top at {text}?", 1e6)
        assert found.words == f"at {text}"
        assert found.start == max(0, clock(text) - 2)
        assert found.stop == clock(text) + 2


@given(st.integers(1, 500), st.sampled_from([("second", 1), ("minute", 60), ("hour", 3600)]))
def test_any_duration_ago_is_found(n: int, unit: tuple[str, int]) -> None:
    now = 1e7
    (found,) = time_spans(f"What was red {n} {unit[0]}s ago?", now)
    distance = n * unit[1]
    assert (found.start + found.stop) / 2 == pytest.approx(now - distance, abs=1)
    assert found.stop - found.start <= max(4, 0.2 * distance) + 1e-6


WORDS = ["at", "the", "between", "and", "from", "to", "before", "after", "first", "last", "5", "a", "half", "two"]
WORDS += ["minute", "seconds", "ago", "1:30", "end", "of", "start", "video", "now", "in", "-", ",", "so far", "İ"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join), st.floats(0, 1e6))
@example("from 5 to the end ago", 0.0)
def test_spans_are_well_formed_whatever_is_asked(question: str, now: float) -> None:
    for found in time_spans(question, now):
        assert -math.inf < found.start < found.stop < math.inf
        assert found.words
        assert found.words in question
        if found.stop > 0:
            assert found.start >= 0


@given(st.text(max_size=80), st.floats(0, 1e6))
def test_any_text_is_survived(question: str, now: float) -> None:
    for found in time_spans(question, now):
        assert found.words in question
