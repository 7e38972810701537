"""The fixed text around a video and its questions, by family of chat models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The fixed text around a video and its questions."""

    prefix: str  # system prompt and the opening of the user's turn; the stream follows
    question_prefix: str  # between the last frame and the question
    question_suffix: str  # closes the user's turn and opens the assistant's


def chatml(system_prompt: str | None) -> ChatFormat:
    """The ChatML turns that Qwen models and LLaVA-OneVision are trained on."""
    system = f"<|im_start|>system\n{system_prompt}<|im_end|>\n" if system_prompt else ""
    return ChatFormat(f"{system}<|im_start|>user\n", "", "<|im_end|>\n<|im_start|>assistant\n")
