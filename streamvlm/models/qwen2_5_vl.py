"""Qwen2.5-VL: sectioned M-RoPE; every temporal patch enters the stream as a video of its own."""

from __future__ import annotations

from streamvlm.models.base import Layout
from streamvlm.models.qwen3_vl import QwenVLModel, delimited_frame


class Qwen25VL(QwenVLModel):
    """Adapter for `Qwen2_5_VLForConditionalGeneration`.

    The family tells time by the t axis inside one video. In a stream every temporal patch is a video of its
    own (StreamingVLM): patches follow each other by their extent and absolute time is told as text.
    """

    family = "qwen2_5_vl"

    def time_words(self, pts: float) -> str:
        return f"Time={pts:.1f}s"

    def frame_layout(self, grid: tuple[int, int], pts: float) -> Layout:
        before = self.tokenize(f"{self.time_words(pts)}<|vision_start|>")
        return delimited_frame(before, grid, self.tokenize("<|vision_end|>"), self.video_token)
