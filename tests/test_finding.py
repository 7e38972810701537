"""Stored moments found by an embedding of pictures and text, the model's own or another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families import FAMILIES, random_model
from test_agent import LONG
from torch import Tensor
from torch.testing import assert_close

from streamvlm import Agent, Frame, WatchConfig
from streamvlm.engine.finding import ModelEmbedder
from streamvlm.engine.looks import picture_pixels, small_picture

CONFIG = WatchConfig(window_seconds=3.0, max_answer_tokens=4, retrieve_method="embedding", retrieve_blocks=1)
COLOURS = ("red", "green", "blue")


class Colours:
    """Embeds pictures and colour names as red, green and blue."""

    name = "colours"
    dim = 3

    def embed_frames(self, frames: Tensor) -> Tensor:
        return frames.float().mean((2, 3)) - 60

    def embed_text(self, text: str) -> Tensor:
        return torch.tensor([float(word in text) for word in COLOURS])


def coloured(count: int) -> Iterator[Frame]:
    """Grey frames; at 4 s red ones, at 8 s green ones, at 12 s blue ones, for a second."""
    for i in range(count):
        picture = torch.full((3, 64, 64), 80, dtype=torch.uint8)
        second = i // 2
        if second in (4, 8, 12):
            picture[second // 4 - 1] = 230
        yield Frame(picture, i * 0.5, 0.5)


def check(moments: tuple[object, ...], second: float) -> None:
    assert moments and all(second - 1 <= m.start <= second + 1 for m in moments)  # type: ignore[attr-defined]


def test_moments_are_found_by_what_they_show(tmp_path: Path) -> None:
    agent = Agent(random_model("qwen3_vl"), watch=CONFIG, embedder=Colours())
    with agent, agent.watch(coloured(50), store=str(tmp_path / "m")) as stream:
        stream.wait(LONG)
        for number, colour in enumerate(COLOURS):
            check(stream.recall(f"something {colour}"), 4.0 * (number + 1))
        answer = stream.ask("what was green?")
        answer.text(LONG)
        check(answer.recalled, 8.0)
        assert all(10.0 < m.start < 14.0 for m in stream.recall("something green", between=(11.0, 14.0)))


def test_the_index_is_made_again_from_the_stored_pictures(tmp_path: Path) -> None:
    with Agent(random_model("qwen3_vl"), watch=CONFIG, embedder=Colours()) as agent:
        with agent.watch(coloured(50), store=str(tmp_path / "m"), retrieve_method="mean_key") as stream:
            stream.wait(LONG)
        with agent.resume(tmp_path / "m") as past:
            check(past.recall("something blue"), 12.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_another_the_models_own_embedding_is_used(family: str, tmp_path: Path) -> None:
    """What is kept while watching is what the embedder makes of the same frame, and a store reopens with it."""
    model = random_model(family)
    with Agent(model, watch=CONFIG) as agent:
        with agent.watch(coloured(30), store=str(tmp_path / "m")) as stream:
            stream.wait(LONG)
            found = stream.recall("anything", between=(1.0, 10.0))
            assert found and all(m.stop > 1.0 and m.start < 10.0 for m in found)
            first = {(m.start, round(m.score, 4)) for m in found}
        with agent.resume(tmp_path / "m") as past:
            assert {(m.start, round(m.score, 4)) for m in past.recall("anything", between=(1.0, 10.0))} == first


@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_own_embedding(family: str) -> None:
    model = random_model(family)
    embedder = ModelEmbedder(model)
    frames = torch.randint(0, 255, (3, 3, 64, 64), dtype=torch.uint8)
    both = embedder.embed_frames(frames)
    assert both.shape == (3, embedder.dim) and both.dtype == torch.float32
    assert_close(embedder.embed_frames(frames[1:2])[0], both[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1])
    same = embedder.embed_text("a red circle")
    assert same.shape == (embedder.dim,) and torch.equal(same, embedder.embed_text("a red circle"))
    assert not torch.allclose(same, embedder.embed_text("a blue square"))


def test_a_store_without_pictures_is_searched_by_time_alone(tmp_path: Path) -> None:
    with Agent(random_model("qwen3_vl"), watch=CONFIG, embedder=Colours()) as agent:
        with agent.watch(coloured(40), store=str(tmp_path / "m"), store_pictures=0, retrieve_method="pages") as stream:
            stream.wait(LONG)
        with agent.resume(tmp_path / "m") as past:
            assert all(m.score == 0.0 for m in past.recall("red"))
            check(past.recall("what was there at 0:09?"), 9.0)


def test_a_picture_comes_back_as_pixels() -> None:
    frame = next(coloured(1)).data
    pixels = picture_pixels(small_picture(frame, 64))
    assert pixels is not None and pixels.shape == (3, 64, 64) and pixels.dtype == torch.uint8
    assert_close(pixels.float(), frame.float(), atol=2.0, rtol=0)
    assert picture_pixels(b"") is None
