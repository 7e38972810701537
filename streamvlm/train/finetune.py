"""The course of a real checkpoint: streaming fine-tuning on what is said about videos."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from streamvlm.errors import SourceError, TrainingError
from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.loading import TINY_FOLDER, load_model
from streamvlm.settings import ModelConfig
from streamvlm.train.collate import Collator, StreamBatch, Weights
from streamvlm.train.conversations import Chunk, Conversation, cut
from streamvlm.train.finetune_plan import FinetunePlan
from streamvlm.train.loop import MicroBatch, precision
from streamvlm.train.method import Prepared
from streamvlm.train.readers import read_files
from streamvlm.train.schedule import warm_cosine
from streamvlm.train.tuner import Tally, Tuner
from streamvlm.train.viewing import view

log = logging.getLogger(__name__)

LEFT_OUT = "left_out.txt"  # in the run's folder, every line of the data that cannot be used


class Finetune:
    """A plan with its chunks and its learner."""

    def __init__(self, plan: FinetunePlan, device: torch.device) -> None:
        self.plan = plan
        self.chunks, self.validation = load_chunks(plan)
        self.model = load_for_training(plan, device)
        self.prepared = Prepared(self.model, plan.method)
        self._learner = Tuner(self.model, plan.method.train_vision)
        self._collator = Collator(self.model, weigh(self.chunks) if plan.data.balance else Weights())
        self._device = device
        self._readers = ThreadPoolExecutor(plan.data.workers, "streamvlm-videos")
        self._ahead: dict[tuple[int, int], Future[StreamBatch]] = {}
        self._orders: dict[int, list[int]] = {}

    def __str__(self) -> str:
        """Everything the weights depend on but the number of processes."""
        plan, run = self.plan, self.plan.run
        return str(
            (
                plan.model,
                plan.data,
                plan.method,
                plan.schedule,
                run.seed,
                run.micro_batches,
                len(self.chunks),
                precision(run),
            )
        )

    @property
    def learner(self) -> Tuner:
        """The model, trained on what it is to write."""
        return self._learner

    @property
    def steps(self) -> int:
        """Steps of the whole course."""
        per_step = self.plan.schedule.chunks * self.plan.run.micro_batches
        return self.plan.schedule.steps or math.ceil(self.plan.schedule.epochs * len(self.chunks) / per_step)

    def stage(self, step: int) -> str:
        """The epoch a step belongs to."""
        per_step = self.plan.schedule.chunks * self.plan.run.micro_batches
        return f"epoch {step * per_step // len(self.chunks) + 1}"

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        schedule = self.plan.schedule
        return warm_cosine(step, schedule.lr, min(schedule.warmup, self.steps // 2), self.steps, schedule.final)

    def batch(self, step: int, index: int) -> MicroBatch:
        """The next chunks in this epoch's order; those of the step after it are read meanwhile."""
        future = self._ahead.pop((step, index), None) or self._readers.submit(self._read, step, index)
        if step + 1 < self.steps:
            self._ahead = {key: value for key, value in self._ahead.items() if key[0] >= step}
            self._ahead[step + 1, index] = self._readers.submit(self._read, step + 1, index)
        batch = future.result()
        return MicroBatch((batch.to(self._device),), float(batch.weights.sum()))

    def _read(self, step: int, index: int) -> StreamBatch:
        schedule = self.plan.schedule
        first = (step * self.plan.run.micro_batches + index) * schedule.chunks
        return self._collate([self._chunk(first + i) for i in range(schedule.chunks)])

    def _chunk(self, place: int) -> Chunk:
        """The chunk at a place of the endless sequence of shuffled epochs."""
        epoch, at = divmod(place, len(self.chunks))
        return self.chunks[self._order(epoch)[at]]

    def _order(self, epoch: int) -> list[int]:
        """The order of an epoch, a function of the seed; only the latest are remembered."""
        order = self._orders.get(epoch)
        if order is None:
            order = list(range(len(self.chunks)))
            random.Random(f"{self.plan.run.seed}/{epoch}").shuffle(order)
            self._orders = {number: o for number, o in self._orders.items() if number >= epoch - 1} | {epoch: order}
        return order

    def _collate(self, chunks: Sequence[Chunk]) -> StreamBatch:
        views = []
        for chunk in chunks:
            try:
                video = chunk.conversation.video
                views.append(view(video, chunk.start, chunk.stop, self.plan.data.fps, self.model))
            except SourceError as error:
                raise TrainingError(f"{chunk.conversation.source}: {error}; take the line out and resume") from error
        return self._collator.batch(chunks, views)

    def validate(self, step: int) -> Mapping[str, float]:
        """On held-out conversations: the weighted loss, then shares of right answers and right decisions."""
        tallies: dict[str, Tally] = {}
        loss, weight = 0.0, 0.0
        for chunk in self.validation:
            more = self.learner.judge(self._collate([chunk]).to(self._device), tallies)
            loss, weight = loss + more[0], weight + more[1]
        scores = {"loss": loss / max(weight, 1e-6)} if self.validation else {}
        for manner, tally in sorted(tallies.items()):
            decision = manner in ("speak", "silent")
            scores[manner] = (tally.decided if decision else tally.right) / tally.asked
        return scores

    def export(self, folder: Path) -> None:
        """A folder that `--model` accepts."""
        self.prepared.export(folder, str(TINY_FOLDER) if self.plan.model == "tiny" else self.plan.model)


def load_chunks(plan: FinetunePlan) -> tuple[list[Chunk], list[Chunk]]:
    """Chunks to train on and chunks to validate on; writes down what had to be left out.

    Raises:
        TrainingError: too much of the data cannot be used.
    """
    data = plan.data
    reading = read_files(data.train, data.reading, data.most_bad)
    if data.validation:
        more = read_files(data.validation, data.reading, data.most_bad)
        trained, held = list(reading.conversations), list(more.conversations)
        reading += more
    else:
        trained, held = hold_out(list(reading.conversations), data.held_out, plan.run.seed)
    plan.run.out.mkdir(parents=True, exist_ok=True)
    (plan.run.out / LEFT_OUT).write_text("".join(f"{r.source}: {r.why}\n" for r in reading.rejected), encoding="utf-8")
    shared = {c.video for c in trained} & {c.video for c in held}
    if shared:
        log.warning("%d videos are trained and validated on, %s for one", len(shared), min(shared))
    chunks, others = ([chunk for c in group for chunk in cut(c, data.chunks)] for group in (trained, held))
    most = data.validation_chunks
    scored = others if len(others) <= most else [others[i * len(others) // most] for i in range(most)]
    log.info("%d chunks of %d conversations; %d of %d are scored", len(chunks), len(trained), len(scored), len(others))
    return chunks, scored


def hold_out(
    conversations: list[Conversation], share: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Split by video, so that none is on both sides; at least one video is trained on."""
    videos = sorted({c.video for c in conversations})
    random.Random(f"{seed}/held out").shuffle(videos)
    held = set(videos[: min(round(share * len(videos)), len(videos) - 1)])
    return [c for c in conversations if c.video not in held], [c for c in conversations if c.video in held]


def weigh(chunks: Sequence[Chunk]) -> Weights:
    """Balanced weights for the decisions in these chunks."""
    counts = Counter(turn.manner for chunk in chunks for turn in chunk.turns)
    return Weights.balanced(counts["speak"], counts["silent"])


def load_for_training(plan: FinetunePlan, device: torch.device) -> VisionLanguageModel:
    """The checkpoint. Weights that learn are float32; frozen ones under LoRA may be bfloat16 on a GPU."""
    frozen = plan.method.kind == "lora" and not plan.method.train_vision
    half = device.type == "cuda" and frozen and precision(plan.run) == "bf16"
    return load_model(
        ModelConfig(
            model=plan.model,
            device=str(device) if device.type == "cuda" else device.type,  # accelerate may say cpu:0
            dtype="bfloat16" if half else "float32",
            min_pixels=plan.min_pixels,
            max_pixels=plan.max_pixels,
        )
    )
