from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from streamvlm.config import Config, ModelConfig, SamplingConfig, WatchConfig, resolve


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that no streamvlm.toml of the developer is found."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_alone() -> None:
    assert resolve() == Config(ModelConfig(), WatchConfig(), SamplingConfig())


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[watch]\nfps = 5\nwindow_seconds = 7.5\nlast_frames = 9\n")
    config = resolve({"fps": 1.0}, {"STREAMVLM_FPS": "3", "STREAMVLM_WINDOW_SECONDS": "8"}, file)
    watch = config.watch
    assert (watch.fps, watch.window_seconds, watch.last_frames, watch.max_readers) == (1.0, 8.0, 9, 8)


def test_a_flag_that_is_none_was_not_given() -> None:
    assert resolve({"fps": None}, {"STREAMVLM_FPS": "3"}).watch.fps == 3.0


def test_every_kind_of_value_is_read_from_the_environment() -> None:
    env = {
        "STREAMVLM_MODEL": "Qwen/Qwen3-VL-2B-Instruct",
        "STREAMVLM_REALTIME": "yes",
        "STREAMVLM_MAX_PIXELS": "none",
        "STREAMVLM_SEED": "7",
        "STREAMVLM_STOP": "END,</s>",
        "STREAMVLM_TEMPERATURE": "0.7",
    }
    config = resolve(env=env)
    assert config.model == ModelConfig(model="Qwen/Qwen3-VL-2B-Instruct")
    assert config.watch.realtime is True
    assert config.sampling == SamplingConfig(seed=7, stop=("END", "</s>"), temperature=0.7)


def test_every_kind_of_value_is_read_from_the_file(tmp_path: Path) -> None:
    text = '[model]\nmax_pixels = 4096\n[watch]\nrealtime = true\npolicy = "full"\n[sampling]\nstop = ["END"]\n'
    config = resolve(file=write(tmp_path / "a.toml", text))
    assert config.model.max_pixels == 4096
    assert (config.watch.realtime, config.watch.policy) == (True, "full")
    assert config.sampling.stop == ("END",)


def test_the_environment_can_unset_what_the_file_sets(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[model]\nmax_pixels = 4096\n")
    assert resolve(env={"STREAMVLM_MAX_PIXELS": "none"}, file=file).model.max_pixels is None


def test_file_is_looked_for_in_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = {"XDG_CONFIG_HOME": str(home)}
    write(home / "streamvlm" / "config.toml", "[watch]\nfps = 1\n")
    assert resolve(env=env).watch.fps == 1
    write(tmp_path / "streamvlm.toml", "[watch]\nfps = 2.5\n")
    assert resolve(env=env).watch.fps == 2.5
    env["STREAMVLM_CONFIG"] = str(write(tmp_path / "named.toml", "[watch]\nfps = 3\n"))
    assert resolve(env=env).watch.fps == 3
    assert resolve(env=env, file=write(tmp_path / "flag.toml", "[watch]\nfps = 4\n")).watch.fps == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[watch]\nfsp = 2\n", r"\[watch\] fsp: unknown setting 'fsp'; allowed: backend, background_tokens, "),
        ("[sampling]\nfps = 2\n", r"\[sampling\] fps: unknown setting 'fps'; allowed: max_new_tokens"),
        ("[stream]\nfps = 2\n", r"unknown setting 'stream'; allowed: model, sampling, watch"),
        ("watch = 2\n", "watch must be a table"),
        ("[watch]\nfps = '2'\n", r"\[watch\] fps: must be of type float, got '2'"),
        ("[watch]\nlast_frames = true\n", r"\[watch\] last_frames: must be of type int, got True"),
        ("[watch]\nfps = 0\n", r"\[watch\] fps: fps must be greater than 0 and finite, got 0.0"),
        ("[sampling]\nstop = 'END'\n", "must be a list of strings, got 'END'"),
        ("[watch\n", r"a\.toml: .*line 1"),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "a.toml", text)
    with pytest.raises(ValueError, match=message) as raised:
        resolve(file=file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("STREAMVLM_FPS", "fast", "must be of type float, got 'fast'"),
        ("STREAMVLM_FPS", "-1", "fps must be greater than 0 and finite, got -1.0"),
        ("STREAMVLM_REALTIME", "maybe", "must be one of 1, true"),
        ("STREAMVLM_POLICY", "lru", "policy must be one of sink_window, full, last_frames"),
        ("STREAMVLM_CONFIG", "/nowhere.toml", "no such file: /nowhere.toml"),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{variable}: {message}"):
        resolve(env={variable: text})


def test_a_bad_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--window-seconds: window_seconds must be greater than 0"):
        resolve({"window_seconds": 0.0})
    with pytest.raises(ValueError, match=r"^--speed: unknown setting 'speed'; allowed: "):
        resolve({"speed": 1.0})
    with pytest.raises(ValueError, match=r"^--config: no such file"):
        resolve(file=tmp_path / "absent.toml")


def test_a_foreign_variable_is_reported_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve(env={"STREAMVLM_FSP": "2"}) == Config()
    assert "STREAMVLM_FSP" in caplog.text


@pytest.mark.parametrize(
    ("record", "values", "message"),
    [
        (ModelConfig, {"model": ""}, "model must be a hub id"),
        (ModelConfig, {"device": "gpu"}, "device must be auto, cpu, mps, cuda or cuda:N, got 'gpu'"),
        (ModelConfig, {"dtype": "fp8"}, "dtype must be one of auto, float32, bfloat16, float16, got 'fp8'"),
        (ModelConfig, {"max_pixels": 0}, "max_pixels must be at least 1, got 0"),
        (
            ModelConfig,
            {"min_pixels": 9, "max_pixels": 4},
            r"min_pixels must be at most max_pixels \(4\), got 9",
        ),
        (WatchConfig, {"fps": float("nan")}, "fps must be greater than 0"),
        (WatchConfig, {"window_seconds": float("inf")}, "window_seconds must be greater than 0 and finite"),
        (WatchConfig, {"backend": "flash"}, "backend must be one of auto, sdpa, flex, got 'flash'"),
        (WatchConfig, {"sink_frames": -1}, "sink_frames must be at least 0, got -1"),
        (WatchConfig, {"max_readers": 0}, "max_readers must be at least 1, got 0"),
        (SamplingConfig, {"temperature": -0.1}, "temperature must be at least 0"),
        (SamplingConfig, {"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        (SamplingConfig, {"min_p": 1.5}, r"min_p must be in \[0, 1\], got 1.5"),
        (SamplingConfig, {"repetition_penalty": 0.0}, "repetition_penalty must be greater than 0"),
        (SamplingConfig, {"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        (SamplingConfig, {"stop": ("",)}, "stop must be non-empty strings"),
    ],
)
def test_a_record_refuses_what_is_not_allowed(
    record: Callable[..., object], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        record(**values)


def test_every_setting_has_one_name() -> None:
    names = [f.name for record in (ModelConfig, WatchConfig, SamplingConfig) for f in fields(record)]
    assert len(names) == len(set(names))


def test_reading_settings_does_not_import_torch() -> None:
    code = "import sys, streamvlm.config; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
