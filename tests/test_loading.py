"""From a folder or a name to a model."""

from __future__ import annotations

import copy
import json
import socket
import time
from pathlib import Path

import pytest
import torch
from families import FAMILIES, random_model
from offline import Scene, Streamed, random_scene
from torch.testing import assert_close

from streamvlm.errors import ModelError
from streamvlm.models.loading import STREAM_PIXELS, adapt, choose_device, choose_dtype, families, load_model
from streamvlm.settings import ModelConfig
from streamvlm.types import Kind


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every family, saved the way they are published."""
    saved = {}
    for family in FAMILIES:
        model, folder = random_model(family), tmp_path_factory.mktemp(family)
        model.module.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        size = {"shortest_edge": 1500, "longest_edge": 9000}
        settings = {"size": size, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        saved[family] = folder
    return saved


def config_for(folder: Path, **settings: object) -> ModelConfig:
    return ModelConfig(**{"model": str(folder), "device": "cpu", **settings})  # type: ignore[arg-type]


def answer_logits(scene: Scene) -> torch.Tensor:
    stream = Streamed(scene.model)
    stream.perceive(scene.perceived())
    return stream.read(scene.asked())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_comes_back_the_same(family: str, folders: dict[str, Path]) -> None:
    scene = random_scene(family)
    loaded = load_model(config_for(folders[family]))
    loaded.pixels = scene.model.pixels  # the folder's own picture settings are tested below
    again = Scene(loaded, scene.frames, scene.question)
    assert loaded.family == family and loaded.dtype == torch.float32 and loaded.device.type == "cpu"
    assert loaded.text_spec == scene.model.text_spec
    assert_close(answer_logits(again), answer_logits(scene), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_sized_by_the_checkpoint_and_by_the_user(family: str, folders: dict[str, Path]) -> None:
    pixels = load_model(config_for(folders[family])).pixels
    assert (pixels.mean, pixels.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    if family == "llava_onevision":
        assert pixels.fixed_size == (48, 48)
        return
    unit = 2 if family == "qwen2_5_vl" else 1  # its checkpoints count the pixels of one frame
    assert (pixels.min_pixels, pixels.max_pixels) == (unit * 1500, unit * 9000)
    pixels = load_model(config_for(folders[family], min_pixels=2000, max_pixels=3000)).pixels
    assert (pixels.min_pixels, pixels.max_pixels) == (2 * 2000, 2 * 3000)
    pixels = load_model(config_for(folders[family], max_pixels=512)).pixels
    assert (pixels.min_pixels, pixels.max_pixels) == (2 * 512, 2 * 512)
    with pytest.raises(ValueError, match="min_pixels=50000 is more than max_pixels"):
        load_model(config_for(folders[family], min_pixels=50_000))


def test_without_picture_settings_frames_fit_a_stream(folders: dict[str, Path]) -> None:
    """Official checkpoints allow 12 megapixels a frame; by default a stream takes far less."""
    module, tokenizer = (getattr(random_model("qwen3_vl"), name) for name in ("module", "tokenizer"))
    for settings in ({}, {"size": {"shortest_edge": 4096, "longest_edge": 25_165_824}}):
        pixels = adapt(copy.deepcopy(module), tokenizer, settings=settings).pixels
        assert pixels.max_pixels == 2 * STREAM_PIXELS
        assert pixels.target_size(1080, 1920) == (336, 592)


def test_the_system_prompt_can_be_chosen(folders: dict[str, Path]) -> None:
    def prefix(family: str, prompt: str | None) -> str:
        model = load_model(config_for(folders[family], system_prompt=prompt))
        text: str = model.tokenizer.decode(model.prefix_layout().ids)
        return text

    told = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    assert prefix("qwen3_vl", "Be brief.") == prefix("qwen2_5_vl", "Be brief.") == told
    assert prefix("qwen3_vl", None) == prefix("qwen2_5_vl", "") == "<|im_start|>user\n"
    assert "You are a helpful assistant." in prefix("qwen2_5_vl", None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_model_runs(family: str, folders: dict[str, Path]) -> None:
    model = load_model(config_for(folders[family], dtype="bfloat16"))
    assert model.dtype == torch.bfloat16
    scene = Scene(model, random_scene(family).frames, "what?")
    logits = answer_logits(scene)
    assert logits.dtype == torch.float32 and logits.isfinite().all()


def test_accelerate_places_the_model(folders: dict[str, Path]) -> None:
    model = load_model(ModelConfig(model=str(folders["qwen3_vl"]), device_map="cpu", dtype="float32"))
    assert model.device.type == "cpu"
    scene = random_scene("qwen3_vl")
    model.pixels = scene.model.pixels
    assert_close(answer_logits(Scene(model, scene.frames, scene.question)), answer_logits(scene), atol=1e-6, rtol=0)


def test_a_text_tower_on_two_devices_is_refused() -> None:
    model = random_model("qwen3_vl")
    module = copy.deepcopy(model.module)
    module.model.language_model.layers[1].to("meta")
    with pytest.raises(ModelError, match=r"big/model: the text tower must be on one device.*cpu, meta"):
        adapt(module, model.tokenizer, ModelConfig(model="big/model"))


def test_a_device_this_machine_lacks_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="device cuda:99 is not available"):
        load_model(config_for(folders["qwen3_vl"], device="cuda:99"))


def test_device_and_dtype_are_chosen_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for cuda, device, dtype in ((False, "cpu", torch.float32), (True, "cuda", torch.bfloat16)):
        monkeypatch.setattr("torch.cuda.is_available", lambda cuda=cuda: cuda)
        auto = ModelConfig()
        assert (choose_device(auto).type, choose_dtype(auto)) == (device, dtype)
        assert choose_dtype(ModelConfig(device="cpu")) == torch.float32
        assert choose_dtype(ModelConfig(dtype="float16")) == torch.float16


@pytest.mark.parametrize("kind", ["bert", "made_up"])
def test_an_unsupported_model_is_refused_with_what_is_supported(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError) as caught:
        load_model(config_for(tmp_path))
    message = str(caught.value)
    assert str(tmp_path) in message and kind in message
    assert all(family in message for family in families())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/no/such/folder", "there is no such folder"),
        ("./nowhere", "there is no such folder"),
        ("runs/my/model", "there is no such folder"),
        ("no-such-org/no-such-model", "cannot be loaded: We couldn't connect to 'https://huggingface.co'"),
        ("not a name!", "cannot be loaded: Repo id must use alphanumeric"),
    ],
)
def test_a_model_that_is_not_there_is_said_to_be_missing(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(*arguments: object) -> None:
        raise AssertionError("it waits for something that cannot come")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(time, "sleep", waits)
    monkeypatch.setattr(socket.socket, "connect", waits)
    with pytest.raises(ModelError) as caught:
        load_model(ModelConfig(model=name))
    message = str(caught.value)
    assert message.startswith(f"{name}: {said}") and len(message) < 600


def test_a_folder_without_weights_or_tokenizer_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folders["qwen3_vl"] / "config.json").read_text())
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(config_for(tmp_path))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((folders["qwen3_vl"] / name).read_text())
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(config_for(tmp_path))


def test_a_corrupt_checkpoint_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["qwen3_vl"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(config_for(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(config_for(tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_is_frozen_and_ends_at_the_end_of_a_turn(family: str, folders: dict[str, Path]) -> None:
    model = load_model(config_for(folders[family]))
    assert not model.module.training and not any(p.requires_grad for p in model.module.parameters())
    assert model.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.eos_tokens
    assert model.text_segment(model.prefix_layout(), Kind.SINK).embeds.dtype == model.dtype
