"""Decoded pictures turned into upright RGB tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


class RgbConverter:
    """Converts the pictures of one stream; holds FFmpeg's scaler, which is dear to set up for each picture."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, picture: VideoFrame) -> Tensor:
        """uint8 [3, H, W], turned the way the file's rotation says."""
        rgb = self._reformatter.reformat(picture, format="rgb24").to_ndarray()
        return to_tensor(np.rot90(rgb, round(picture.rotation / 90)) if picture.rotation else rgb)


def to_tensor(rgb: np.ndarray[Any, Any]) -> Tensor:
    """uint8 [H, W, 3] to uint8 [3, H, W] over the same memory: who needs it in order makes a copy."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)
