"""The embedded model's tokenizer: byte-level BPE in which every word of the world is one token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")
VOCABULARY = 2048  # at most; merges run out earlier
# Digits stand alone, so that every number is spelt; " seconds>" closes a timestamp in one token.
_SPLIT = r" seconds>|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"
_FIXED = (
    "system\nYou are a helpful assistant.\nuser\nassistant\n<0.0 seconds>",
    "Notes:\n Answer yes or no. A. B. C. D. ( ) ? : ; , - ' /",
)
# Every word of the world's questions and answers, and some that people will try.
_WORDS = """
a an and answer appear appeared are ask assistant at be before after between blink blinked blinking blinks blue bottom
by camera can center change changed changes changing circle circles color colors colour come comes corner could count
cross crosses cut dark describe diamond diamonds did dim dimmed disappear disappeared do does doing enter entered
entering enters ever event everything first five following four frame get go gone green had happen happened happening
happens has have help helpful here hit hits hitting hour how hours i in is it just know last later leave leaves leaving
left light like many me middle minute minutes moment most move moved moves moving name new next no none not note notes
nothing now number object objects of off often on one open or orange order other out part picture pink place please
position purple read ready red returned right same say says scene second seconds see seen sequence shake shakes shaking
shape shapes shook show showed showing shown shows side sign signs since slow so some something square squares star
stars still stop system tell text than that the their them then there these thing things this three time times to top
triangle triangles true turn turned turning turns two up user video visible wait was watch were what when where which
white while who why will with word words yellow yes yet you your
"""


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
    for line in (*_FIXED, *(f"{form} {form}" for word in _WORDS.split() for form in (word, word.capitalize()))):
        for _ in range(50):
            yield line


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% elif part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
