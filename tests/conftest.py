"""What several tests need and is slow to make."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families import random_model

from streamvlm.world.video import VideoSpec, render


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` are left out unless asked for; then a skip would look like a pass."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.fail("needs a CUDA device, and this machine has none", pytrace=False)


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """The command sets how much is logged; the tests after it must not notice."""
    logger = logging.getLogger("streamvlm")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local checkpoint, as somebody's own model would lie there."""
    path = tmp_path_factory.mktemp("model")
    model = random_model("qwen3_vl")
    model.module.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def world_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty seconds of H.264, 64 x 64."""
    path = tmp_path_factory.mktemp("world")
    render(3, 30.0, path, VideoSpec(fps=2, size=64), questions=1)
    return path / "video.mp4"
