"""Pictures between bytes, PIL and the engine's frames."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from streamvlm.demo.chat.refusals import Refused


def decoded(data: bytes, most_pixels: int) -> Tensor:
    """A JPEG as uint8 [3, H, W].

    Raises:
        Refused: it is no JPEG, is damaged, or has more pixels than allowed.
    """
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            if width * height > most_pixels:
                raise Refused(f"The picture has {width} x {height} pixels; {most_pixels} are allowed.")
            array = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise Refused("The picture cannot be read.") from None
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def jpeg(data: Tensor, width: int, quality: int = 75) -> bytes:
    """uint8 [3, H, W] as JPEG, at most `width` pixels wide."""
    image = Image.fromarray(data.permute(1, 2, 0).contiguous().numpy())
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.BILINEAR)
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
