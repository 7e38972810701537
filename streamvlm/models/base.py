"""What the engine asks of a vision-language model. One subclass per family, each in a file of its own."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from streamvlm.models.attention import cache_argument
from streamvlm.models.chat import ChatFormat
from streamvlm.types import Kind, Segment, VisionTokens
from streamvlm.vision import PixelSpec, normalise, resize


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Token rows before embedding. Training and inference build their sequences from these alone."""

    ids: Tensor  # int64 [n]; rows that carry vision hold the family's video placeholder
    positions: Tensor  # int64 [n, 3] t,h,w relative to the layout's start
    visual: Tensor  # bool [n]
    extent: int  # how far the layout advances the position cursor

    def __len__(self) -> int:
        return int(self.ids.shape[0])


@dataclass(frozen=True, slots=True)
class TextSpec:
    """The shape of a family's language model, as the cache needs it."""

    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    deepstack: int  # layers that receive extra vision features; 0 for most families


@dataclass(frozen=True, slots=True, eq=False)
class LanguageInput:
    """A packed batch of rows for the language model."""

    embeds: Tensor  # [batch, rows, hidden]
    positions: Tensor  # int64 [batch, rows, 3] t,h,w
    visual: Tensor  # bool [batch, rows]
    deepstack: tuple[Tensor, ...]  # per injected layer [visual.sum(), hidden]


class VisionLanguageModel(ABC):
    """A family's adapter: text and frames in, rows and logits out, no streaming state inside.

    Everything is reentrant: the encode thread may run the vision tower while the engine thread runs the
    language model.
    """

    family: str  # transformers' model_type

    def __init__(self, module: Any, tokenizer: Any, pixels: PixelSpec, chat: ChatFormat) -> None:  # noqa: ANN401
        self.module = module
        self.tokenizer = tokenizer
        self.pixels = pixels
        self.chat = chat
        self._tokenizer_lock = threading.Lock()

    @cached_property
    def text_spec(self) -> TextSpec:
        """The language model's shape, from its config."""
        config = self.module.config.get_text_config()
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        return TextSpec(
            layers=config.num_hidden_layers,
            kv_heads=config.num_key_value_heads,
            head_dim=head_dim,
            hidden=config.hidden_size,
            deepstack=self.deepstack_layers,
        )

    @property
    def deepstack_layers(self) -> int:
        """Number of language-model layers that receive extra vision features."""
        return 0

    @property
    def device(self) -> torch.device:
        """Where embeddings live and inputs must be put."""
        return torch.device(self.embedding.weight.device)

    @property
    def dtype(self) -> torch.dtype:
        """The language model's floating type."""
        dtype = self.embedding.weight.dtype
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def embedding(self) -> Any:  # noqa: ANN401
        """The input embedding module."""
        return self.module.get_input_embeddings()

    @property
    @abstractmethod
    def language_model(self) -> Any:  # noqa: ANN401
        """The text tower, a transformers module that takes embeddings, positions and a cache."""

    @property
    @abstractmethod
    def video_token(self) -> int:
        """Id of the placeholder that stands for one projected vision token."""

    @cached_property
    def eos_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        configured = self.module.generation_config.eos_token_id if self.module.generation_config else None
        ids = configured if isinstance(configured, list) else [configured, self.tokenizer.eos_token_id]
        return frozenset(i for i in ids if i is not None)

    # layouts: what the sequence is made of

    @cached_property
    def _special_tokens(self) -> re.Pattern[str]:
        """Matches every special token, those too that the tokenizer has no name for (LLaVA's `<video>`)."""
        added = self.tokenizer.added_tokens_decoder.values()
        tokens = {*self.tokenizer.all_special_tokens, *(t.content for t in added if t.special)}
        return re.compile("|".join(re.escape(t) for t in sorted(tokens)))

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens recognised, none added."""
        with self._tokenizer_lock:  # fast tokenizers refuse to be borrowed twice
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(i) for i in ids]

    def text_layout(self, text: str) -> Layout:
        """Plain text: every axis advances by one a token."""
        ids = torch.tensor(self.tokenize(text), dtype=torch.int64)
        steps = torch.arange(len(ids)).unsqueeze(1).expand(-1, 3)
        return Layout(ids, steps.contiguous(), torch.zeros(len(ids), dtype=torch.bool), len(ids))

    def prefix_layout(self) -> Layout:
        """System prompt and the opening of the user's turn: the text sink that every stream starts with."""
        return self.text_layout(self.chat.prefix)

    def question_layout(self, question: str) -> Layout:
        """What a reader prefills: the question, the end of the user's turn, the start of the assistant's.

        Special tokens are taken out of `question`, so that it cannot forge a turn.
        """
        return self.text_layout(self.chat.question_prefix + self._plain(question) + self.chat.question_suffix)

    def answer_layout(self, answer: str) -> Layout:
        """What a reader is trained to write after `question_layout`: the answer and the token that ends it."""
        text = self.text_layout(self._plain(answer))
        ids = torch.cat((text.ids, torch.tensor([self.tokenizer.eos_token_id])))
        steps = torch.arange(len(ids)).unsqueeze(1).expand(-1, 3)
        return Layout(ids, steps.contiguous(), torch.zeros(len(ids), dtype=torch.bool), len(ids))

    def _plain(self, text: str) -> str:
        """Text without special tokens and outer blanks."""
        before, clean = text, self._special_tokens.sub("", text)
        while clean != before:  # what is taken out may leave two halves that make another
            before, clean = clean, self._special_tokens.sub("", clean)
        return clean.strip()

    def time_words(self, pts: float) -> str:
        """The text that tells a frame's time before it (`pts` seconds); empty where only the order of frames does."""
        return ""

    @abstractmethod
    def frame_layout(self, grid: tuple[int, int], pts: float) -> Layout:
        """One temporal patch with its delimiters; `grid` is its tokens (rows, columns), `pts` seconds."""

    # rows: layouts with content

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings [n, hidden] of ids [n]."""
        embeds: Tensor = self.embedding(ids.to(self.device))
        return embeds

    def embed_rows(self, ids: Tensor, visual: Tensor) -> Tensor:
        """Embeddings [..., hidden] of a layout's rows; those that carry vision (`visual`) are to be filled in."""
        return self.embed(ids)

    def text_segment(self, layout: Layout, kind: Kind = Kind.TEXT, at: float = 0.0) -> Segment:
        """A text layout as rows to prefill; `at` is the stream time it belongs to, in seconds."""
        embeds = self.embed_rows(layout.ids, layout.visual)
        return Segment(embeds, layout.positions, layout.extent, layout.visual, (), kind, at, at)

    def token_segment(self, token: int) -> Segment:
        """The row of one token an answer has just written."""
        ids = torch.tensor([token])
        position = torch.zeros(1, 3, dtype=torch.int64)
        return Segment(self.embed(ids), position, 1, torch.zeros(1, dtype=torch.bool), (), Kind.TEXT, 0.0, 0.0)

    def question_segment(self, question: str, at: float) -> Segment:
        """The rows a reader prefills before it decodes."""
        return self.text_segment(self.question_layout(question), Kind.TEXT, at)

    def frame_segment(self, tokens: VisionTokens) -> Segment:
        """A frame's rows: delimiters embedded, vision tokens in place. Dropping one moves no other."""
        layout = self.frame_layout(tokens.grid, tokens.pts)
        rows = layout.visual.nonzero().squeeze(1)
        assert len(rows) == tokens.grid[0] * tokens.grid[1], "layout and grid disagree"
        slots = tokens.slot.cpu()
        keep = ~layout.visual
        keep[rows[slots]] = True
        visual = layout.visual[keep]
        embeds = self.embed(layout.ids[keep])
        embeds[visual.to(embeds.device)] = tokens.embeds.to(embeds.device, embeds.dtype)
        return Segment(
            embeds,
            layout.positions[keep],
            layout.extent,
            visual,
            tokens.deepstack,
            Kind.VISION,
            tokens.pts,
            tokens.pts + tokens.duration,
        )

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens that a frame of this many pixels becomes."""
        return self.pixels.merged_grid(height, width)

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [n, 3, H, W] to float32 [n, 3, h, w] on the device, resized and normalised."""
        size = self.pixels.target_size(frames.shape[2], frames.shape[3])
        return normalise(resize(frames.to(self.device), size), self.pixels)

    @abstractmethod
    def tower_features(self, pixels: Sequence[Tensor]) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        """Run the vision tower and its projector once. No temporal patch attends to another.

        Args:
            pixels: of each size, float32 [b·t, 3, h, w] from `preprocess`, t frames to a temporal patch.

        Returns:
            of each size, embeds [b, n, hidden] in raster order and, per deepstack layer, [b, n, hidden].
        """

    def vision_features(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`tower_features` of frames of one size."""
        return self.tower_features([pixels])[0]

    def encode(self, frames: Tensor, spans: Sequence[tuple[float, float]]) -> list[VisionTokens]:
        """Frames uint8 [b·t, 3, H, W] of one size to b blocks; `spans` holds each block's (pts, duration)."""
        t = self.pixels.temporal
        return self.encode_patches([frames[i : i + t] for i in range(0, len(frames), t)], spans)

    @torch.inference_mode()
    def encode_patches(self, patches: Sequence[Tensor], spans: Sequence[tuple[float, float]]) -> list[VisionTokens]:
        """Temporal patches uint8 [t, 3, H, W] of any sizes to a block each, in one call of the vision tower."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for i, patch in enumerate(patches):
            sizes.setdefault((patch.shape[2], patch.shape[3]), []).append(i)
        pixels = [self.preprocess(torch.cat([patches[i].to(self.device) for i in alike])) for alike in sizes.values()]
        blocks: dict[int, VisionTokens] = {}
        for (size, alike), (embeds, deepstack) in zip(sizes.items(), self.tower_features(pixels), strict=True):
            grid = self.token_grid(*size)
            slot = torch.arange(grid[0] * grid[1])
            for at, i in enumerate(alike):
                blocks[i] = VisionTokens(embeds[at], tuple(d[at] for d in deepstack), slot, grid, *spans[i])
        return [blocks[i] for i in range(len(patches))]

    @abstractmethod
    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 [n, head_dim] each, that rotate keys to int64 positions [n, 3]; unscaled."""

    def language(self, batch: LanguageInput, cache: Cache | None = None, **attention: Any) -> Tensor:  # noqa: ANN401
        """One pass of the text tower; hidden states [batch, rows, hidden]. `attention` is passed on."""
        out = self.language_model(
            inputs_embeds=batch.embeds,
            position_ids=self.position_ids(batch.positions),
            use_cache=cache is not None,
            **{cache_argument(type(self.language_model)): cache},  # type: ignore[arg-type]
            **self.deepstack_arguments(batch),
            **attention,
        )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def position_ids(self, positions: Tensor) -> Tensor:
        """int64 [batch, rows, 3] as the family's forward wants it: three axes first."""
        return positions.permute(2, 0, 1)

    def deepstack_arguments(self, batch: LanguageInput) -> dict[str, Any]:
        """Extra arguments of the text tower's forward; none without deepstack."""
        return {}

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [n, vocabulary] for hidden states [n, hidden]."""
        logits: Tensor = self.module.get_output_embeddings()(hidden)
        return logits.float()
