"""Fine-tuning of real checkpoints' classes, tiny and random: full and LoRA, resumed, saved, loaded by `--model`."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import Driver, random_blocks
from families import FAMILIES, random_model
from torch import Tensor
from torch.testing import assert_close
from tuning import course_of, make_base, open_run, write_plan

from streamvlm.errors import ModelError, TrainingError
from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.loading import load_model
from streamvlm.settings import ModelConfig
from streamvlm.train.checkpoint import trained
from streamvlm.train.journal import Journal
from streamvlm.train.method import Method, Prepared


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos with commentary, and a checkpoint of every family."""
    return make_base(tmp_path_factory.mktemp("finetune"))


def answer_logits(model: VisionLanguageModel) -> Tensor:
    """What the engine makes of a stream and a question with this model."""
    driver = Driver(model)
    watched = driver.watch(random_blocks(model, 4), ended=True, max_answer_tokens=4)
    answer = driver.ask(watched, "what is it?")
    driver.run()
    return torch.stack(driver.recordings[answer].logits)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_saves_a_folder_that_model_accepts(family: str, kind: str, base: Path) -> None:
    name = f"{family}-{kind}"
    trainer = open_run(write_plan(base, name, family, kind=kind, steps=8, train_vision=str(kind == "full").lower()))
    course = course_of(trainer)
    frozen = {n: p.clone() for n, p in course.model.module.named_parameters() if not p.requires_grad}
    trainer.run()
    lines = [line for line in Journal(base / name / "metrics.jsonl").read() if "loss" in line]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    parameters = dict(course.model.module.named_parameters())
    assert all(torch.equal(parameters[n], weight) for n, weight in frozen.items()), "what is frozen has changed"
    assert bool(frozen) == (kind == "lora")

    loaded = load_model(ModelConfig(model=str(base / name / "model"), device="cpu"))
    shown, trained_on = loaded.pixels, course.model.pixels
    assert [shown.target_size(h, 90) for h in (30, 64, 200)] == [trained_on.target_size(h, 90) for h in (30, 64, 200)]
    assert loaded.family == family and (shown.mean, shown.std) == (trained_on.mean, trained_on.std)
    course.model.module.eval()
    ours, theirs = answer_logits(course.model), answer_logits(loaded)
    assert_close(theirs, ours, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(theirs[0], answer_logits(random_model(family))[0], atol=1e-2), "nothing was learnt"


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_embedded_model_can_be_tuned_too(kind: str, base: Path) -> None:
    """Its input and output embeddings are one tensor, which has to stay one on the way to the folder and back."""
    trainer = open_run(write_plan(base, f"tiny-{kind}", kind=kind, model="tiny", steps=2))
    trainer.run()
    ours, theirs = course_of(trainer).model, load_model(ModelConfig(model=str(trainer.model_folder), device="cpu"))
    ours.module.eval()
    assert_close(answer_logits(theirs), answer_logits(ours), atol=1e-4, rtol=1e-3)
    assert theirs.embedding.weight is theirs.module.get_output_embeddings().weight
    assert not torch.equal(answer_logits(theirs)[0], answer_logits(load_model(ModelConfig("tiny", "cpu")))[0])


def test_an_interrupted_run_ends_with_the_same_weights(base: Path) -> None:
    """Full, with the tower, and two batches a step: what is read ahead does not depend on where it stopped."""
    options: dict[str, Any] = {"kind": "full", "train_vision": "true", "micro_batches": 2}
    whole = open_run(write_plan(base, "whole", **options))
    whole.run()
    for stop in (1, 4):
        open_run(write_plan(base, "parts", **options)).run(until=stop)
    rest = open_run(write_plan(base, "parts", **options))
    assert rest.step == 4
    rest.run()
    ours, theirs = trained(rest.course.learner), trained(whole.course.learner)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


@pytest.mark.slow
def test_two_processes_tune_the_same_weights_as_one(base: Path) -> None:
    """The command under torchrun; LoRA, the tower and gradient checkpointing, each process half of a step."""
    options: dict[str, Any] = {"train_vision": "true", "checkpointing": "true", "micro_batches": 2, "steps": 4}
    alone = open_run(write_plan(base, "alone", **options))
    alone.run()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "streamvlm.cli", "train", str(write_plan(base, "both", **options))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trained: ") == 1 and (base / "both" / "model" / "config.json").exists()
    both = torch.load(base / "both" / "checkpoint.pt")["weights"]
    for name, weight in trained(alone.course.learner).items():
        assert_close(both[name], weight, atol=1e-5, rtol=1e-4)


def test_a_lora_checkpoint_holds_the_adapter_only(base: Path) -> None:
    trainer = open_run(write_plan(base, "small"))
    trainer.run(until=2)
    saved = torch.load(trainer.checkpoint)["weights"]
    assert saved and all(".lora_" in name for name in saved)
    again = open_run(write_plan(base, "small"))
    for name, weight in trained(trainer.course.learner).items():
        assert torch.equal(weight, trained(again.course.learner)[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient(family: str, base: Path) -> None:
    gradients = []
    for checkpointing in ("false", "true"):
        options = {"kind": "full", "train_vision": "true", "checkpointing": checkpointing}
        trainer = open_run(write_plan(base, f"gc-{family}-{checkpointing}", family, **options))
        learner = trainer.course.learner.train()
        calls = count_forwards(course_of(trainer).model)
        learner(*trainer.course.batch(0, 0).inputs)["loss"].backward()
        gradients.append({n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None})
        assert calls[0] == (2 if checkpointing == "true" else 1)
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def count_forwards(model: VisionLanguageModel) -> list[int]:
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    model.language_model.layers[0].mlp.register_forward_pre_hook(count)
    return calls


def test_only_what_the_assistant_says_is_learnt(base: Path) -> None:
    """Every target is a token of an answer or the one that ends it; decisions carry their class's weight."""
    course = course_of(open_run(write_plan(base, "targets")))
    model, (speak, silent) = course.model, (course._collator._weights.speak, course._collator._weights.silent)
    counts = [t.manner for c in course.chunks for t in c.turns]
    assert counts.count("speak") * speak == pytest.approx(counts.count("silent") * silent)
    assert speak > 1 > silent or silent >= 1 >= speak
    for chunk in course.chunks:
        batch = course._collate([chunk])
        for number, turn in enumerate(chunk.turns, start=1):
            mine = (batch.block[0] == number) & (batch.targets[0] >= 0)
            assert model.tokenizer.decode(batch.targets[0][mine]) == f"{turn.answer}<|im_end|>"
            first = float(batch.weights[0][mine][0])
            assert first == pytest.approx({"speak": speak, "silent": silent, "answer": 1.0}[turn.manner])
        learnt = batch.targets[0] >= 0
        assert not learnt[batch.block[0] == 0].any() and not batch.weights[0][~learnt].any()


def test_validation_tells_decisions_from_answers(base: Path) -> None:
    trainer = open_run(write_plan(base, "scores"))
    scores = trainer.validate()
    assert set(scores) == {"loss", "speak", "silent", "answer"}
    assert all(0 <= scores[name] <= 1 for name in ("speak", "silent", "answer"))
    trained_on = {c.conversation.video for c in course_of(trainer).chunks}
    assert not trained_on & {c.conversation.video for c in course_of(trainer).validation}


def test_an_adapter_alone_is_refused_with_what_to_do(base: Path) -> None:
    trainer = open_run(write_plan(base, "adapter", steps=1))
    trainer.run()
    adapter = base / "adapter" / "adapter"
    assert {p.name for p in adapter.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    with pytest.raises(ModelError, match=r"LoRA adapter.*merged"):
        load_model(ModelConfig(model=str(adapter), device="cpu"))


def test_a_merged_export_leaves_the_learner_as_it_was(tmp_path: Path) -> None:
    model = random_model("qwen3_vl")
    mine = type(model)(copy.deepcopy(model.module), model.tokenizer, model.pixels, model.chat)
    prepared = Prepared(mine, Method(rank=2))
    for name, parameter in mine.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = answer_logits(mine)
    prepared.export(tmp_path / "model", str(tmp_path))
    assert torch.equal(answer_logits(mine), before)
    loaded = load_model(ModelConfig(model=str(tmp_path / "model"), device="cpu"))
    assert_close(answer_logits(loaded), before, atol=1e-4, rtol=1e-4)


def test_a_video_that_breaks_during_training_is_named(base: Path, tmp_path: Path) -> None:
    course = course_of(open_run(write_plan(base, "broken")))
    (tmp_path / "c.mp4").write_bytes(b"gone bad")
    chunk = course.chunks[0]
    broken = replace(chunk, conversation=replace(chunk.conversation, video=tmp_path / "c.mp4"))
    with pytest.raises(TrainingError, match=r"lines\.jsonl:\d.*c\.mp4"):
        course._collate([broken])


def test_a_seed_fixes_where_lora_begins(base: Path) -> None:
    first, again = (trained(open_run(write_plan(base, f"seed-{i}")).course.learner) for i in range(2))
    assert first.keys() == again.keys()
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
