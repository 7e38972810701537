"""The embedded model's tokenizer: byte-level BPE in which every word of the world is one token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from streamvlm.world.questions import phrases

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")
VOCABULARY = 1024
# Digits stand alone, so that every number is spelt; " seconds>" closes a timestamp in one token.
_SPLIT = r" seconds>|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"
_CHAT = (
    "system\nYou are a helpful assistant.\nuser\nassistant\n<0.0 seconds>",
    "Yes No yes no none nothing left right top bottom center middle corner above below before after",
    "What Where When Who Which How Is Are Was Were Did Do Does Can There The This That It and or not of in on at to",
    "object objects shape shapes color colors colour number sign time second seconds minute minutes hour ago now last",
    "first ever seen appeared left moved entered changed happened describe video frame picture scene watch tell say",
)


def build_tokenizer() -> Any:  # noqa: ANN401
    """A `PreTrainedTokenizerFast` trained on the world's questions; any other text falls back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END, *VISION],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, *VISION],
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer's files into `folder`."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def _corpus() -> Iterator[str]:
    for line in _CHAT:
        for _ in range(50):
            yield line
            yield " ".join(line.lower().split())
    for phrase in phrases():
        yield phrase
        yield phrase[0].upper() + phrase[1:]


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% elif part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
