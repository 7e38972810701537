"""What storing in 8 bits does to attention and to what is said."""

from __future__ import annotations

import pytest
import torch
from driver import Driver, random_blocks, window_of
from families import FAMILIES, random_model
from torch import Tensor

from streamvlm import SamplingConfig, codec_errors
from streamvlm.engine.answer import Answer
from streamvlm.engine.reader import make_reader
from streamvlm.memory.blocks import BlockRun, BlockShape, KVBlock
from streamvlm.memory.codecs import LayerLayout, decode, encode
from streamvlm.memory.recalling import recall

LARGEST_ERROR = 0.015  # of attention's output, relative
LARGEST_KL = 1e-3  # nats


def through(codec: str, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    layers, heads, tokens, dim = keys.shape
    return decode(LayerLayout.of(codec, BlockShape(layers, heads, dim), tokens), encode(codec, keys, values))


@pytest.mark.parametrize("bias", [0.0, 60.0], ids=["even", "as Qwen2's, with channels far out"])
def test_attention_over_blocks_in_8_bits(bias: float) -> None:
    seeded = torch.Generator().manual_seed(0)
    blocks = [torch.randn(2, 3, 2, 25, 64, generator=seeded) for _ in range(40)]
    for keys, _ in blocks:
        keys[:, :, :, ::16] += bias
    query = torch.randn(3, 2, 50, 64, generator=seeded)
    outputs = []
    for codec in ("fp32", "int8"):
        stored = [through(codec, keys, values) for keys, values in blocks]
        keys, values = (torch.cat(parts, 2) for parts in zip(*stored, strict=True))
        outputs.append(torch.nn.functional.scaled_dot_product_attention(query, keys, values))
    exact, coarse = outputs
    assert float((coarse - exact).norm() / exact.norm()) <= LARGEST_ERROR


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_what_is_said_after_8_bits(family: str) -> None:
    """KL of the next token's distribution, with recalled blocks in 8 bits against the same in 32."""
    model = random_model(family)
    said = []
    for codec in ("fp32", "int8"):
        driver = Driver(model)
        stream = driver.watch(random_blocks(model, 12), window_seconds=3.0, max_answer_tokens=4, store="unused")
        left: list[KVBlock] = []
        driver.step(1)
        window_of(stream).on_evict = lambda leaving, left=left: not left.append(leaving.block())
        driver.run()
        answer = Answer("what was it?", None, lambda: None)
        reader = make_reader(model, window_of(stream), answer, SamplingConfig(temperature=0.0), 1)
        blocks = [b.about.block(*through(codec, b.keys, b.values), -1) for b in left]
        recall(window_of(stream), reader.handle, [BlockRun.of(blocks)])
        stream.readers.append(reader)
        answer.start(0.0, [])
        driver.run()
        said.append(torch.stack(driver.recordings[answer].logits)[0].double().log_softmax(-1))
    exact, coarse = said
    assert 0 < float((exact.exp() * (exact - coarse)).sum()) <= LARGEST_KL


@pytest.mark.parametrize("family", FAMILIES)
def test_the_errors_of_a_codec_with_a_models_own_keys(family: str) -> None:
    """More than nothing, within what the design allows, and nothing where nothing is changed."""
    model = random_model(family)
    frames = torch.randint(0, 256, (16, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    found = codec_errors(model, frames, "what was it?")
    assert len(found.attention) == model.text_spec.layers
    assert all(0 < error <= LARGEST_ERROR for error in found.attention)
    assert 0 < found.kl <= LARGEST_KL
    same = codec_errors(model, frames, "what was it?", "fp16")
    assert max(same.attention) == 0 == same.kl
    with pytest.raises(ValueError, match="nothing has left the window"):
        codec_errors(model, frames, "what was it?", window_seconds=100.0)
