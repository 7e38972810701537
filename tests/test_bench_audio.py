"""What benchmarks hear: subtitles, sound cut where it belongs, Whisper."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import bench_data
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_bench_run import run_cli
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from streamvlm import ModelError, SourceError
from streamvlm.benchmarks.core import audio, journal
from streamvlm.benchmarks.core.audio import RATE, Subtitles, Transcriber
from streamvlm.benchmarks.core.whisper import Whisper

SRT = "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i>\nthere\n\n2\n00:00:04,000 --> 00:00:06,000\nBye\n"
VTT = "WEBVTT\n\n00:01.000 --> 00:02.500\nHello there\n\n00:04.000 --> 00:06.000\nBye\n"


@pytest.mark.parametrize(("suffix", "text"), [(".srt", SRT), (".srt", SRT.replace("\n", "\r\n")), (".vtt", VTT)])
def test_subtitles_are_heard_when_they_are_over(tmp_path: Path, suffix: str, text: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(text.encode())
    ear = Subtitles(tmp_path)
    assert ear("some/a.mp4", 0, 10) == ear("a.mp4", 0, 10) == "Hello there Bye"
    assert ear("a.mp4", 0, 5.9) == "Hello there", "the second line is still being said"
    assert ear("a.mp4", 3, 10) == "Bye" and ear("other.mp4", 0, 10) == ""


def tone(path: Path, seconds: float, rate: int = 48_000) -> Path:
    """A sound whose loudness rises from 0 to 1."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        ramp = (np.linspace(0, 1, round(seconds * rate)) * 32767).astype(np.int16)
        for start in range(0, len(ramp), 1024):
            part = ramp[start : start + 1024].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_sound_is_cut_where_it_belongs(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav", 10.0)
    sound = audio.samples(path, 2.0, 5.0)
    assert len(sound) == 3 * RATE and sound.dtype == np.float32
    assert sound[0] == pytest.approx(0.2, abs=0.01) and sound[-1] == pytest.approx(0.5, abs=0.01)
    assert len(audio.samples(path, 8.0, 20.0)) == pytest.approx(2 * RATE, abs=RATE / 50)
    with pytest.raises(SourceError):
        audio.samples(tmp_path / "none.wav", 0, 1)


def test_a_video_without_sound_is_silent(world_video: Path) -> None:
    ear = Transcriber(world_video.parent, lambda sound: "never", "x")
    assert ear(world_video.name, 0, 10) == ""


def test_pieces_are_transcribed_once_and_nothing_later_is_heard(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 80.0, rate=8000)
    heard: list[tuple[float, float]] = []

    def listen(sound: NDArray[np.float32]) -> str:
        heard.append((round(float(sound[0]) * 80, 1), round(float(sound[-1]) * 80, 1)))
        return f"{len(heard)}"

    ear = Transcriber(tmp_path, listen, "x")
    assert ear("a.wav", 0.0, 70.0) == "1 2 3"
    assert [(round(a), round(b)) for a, b in heard] == [(0, 30), (30, 60), (60, 70)]
    assert ear("a.wav", 0.0, 45.0) == "1 4" and (round(heard[-1][0]), round(heard[-1][1])) == (30, 45)
    assert ear("a.wav", 0.0, 70.0) == "1 2 3" and len(heard) == 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of random weights."""
    path = tmp_path_factory.mktemp("whisper")
    words = {w: k for k, w in enumerate(("<pad>", "<s>", "</s>", "one", "two", "three", "four", "five"))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(path)
    torch.manual_seed(0)
    each = (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))
    size: dict[str, Any] = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in each}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    nothing: dict[str, Any] = {"suppress_tokens": None, "begin_suppress_tokens": None}
    config = WhisperConfig(
        vocab_size=len(words), num_mel_bins=8, d_model=16, max_target_positions=16, **size, **ids, **nothing
    )
    WhisperForConditionalGeneration(config).save_pretrained(path)
    WhisperFeatureExtractor(feature_size=8).save_pretrained(path)
    return path


def test_whisper_writes_words_and_the_same_ones_again(checkpoint: Path) -> None:
    whisper = Whisper(str(checkpoint), "cpu")
    sound = np.sin(np.arange(3 * RATE, dtype=np.float32))
    said = whisper(sound)
    assert set(said.split()) <= {"one", "two", "three", "four", "five"} and said == whisper(sound)
    with pytest.raises(ModelError, match="cannot be loaded as Whisper"):
        Whisper(str(checkpoint.parent / "nothing"))


def test_a_run_is_stamped_with_what_it_heard_with(tmp_path: Path, world_video: Path) -> None:
    data = bench_data.streaming(tmp_path / "streaming") / "questions_real.json"
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "videos" / f"{name}.mp4").symlink_to(world_video)
    (tmp_path / "a.srt").write_text(SRT)
    for out, flags in (("silent", ()), ("subtitles", ("--subtitles", tmp_path))):
        code, _, err = run_cli(
            "run", "streamingbench", "--data", data, "--videos", tmp_path / "videos", "--context", 3, *flags,
            "--out", tmp_path / out,
        )  # fmt: skip
        assert code == 0, err
        assert journal.load(tmp_path / out).stamp["audio"] == out
