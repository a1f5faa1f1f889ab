"""Pictures as PNG files: grids of images, written atomically."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vq.core.records import to_uint8
from vq.io import atomic


def grid(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """(N, 3, H, W) float in [-1, 1] or uint8 -> one (3, H', W') uint8 picture on the CPU, white between the images."""
    pictures = (images if images.dtype == torch.uint8 else to_uint8(images)).cpu()
    count, _, height, width = pictures.shape
    rows = -(-count // columns)
    sheet = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for index, picture in enumerate(pictures):
        top, left = gap + (index // columns) * (height + gap), gap + (index % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return sheet


def png_bytes(picture: Tensor) -> bytes:
    """(3, H, W) uint8 -> PNG. Zlib's default level, 6, takes nearly twice as long for files that are 6% smaller."""
    stream = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(stream, 'PNG', compress_level=2)
    return stream.getvalue()


def save_png(path: Path, picture: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, png_bytes(picture))


def token_map(tokens: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Tokens as a uint8 picture: one colour per code, the same in every picture.

    (h, w) give (3, size, size), or the height and width in ``size``; (h, w, n) give n of these side by side. 1-d tokens fill
    a square row by row, and its empty cells are white. Hues step by the golden ratio, so that neighbouring codes look
    different.
    """
    if tokens.ndim > 2:
        maps = [token_map(layer, size) for layer in tokens.flatten(2).unbind(-1)]
        return torch.cat(maps, dim=2)
    if tokens.ndim == 1:
        side = math.isqrt(max(len(tokens) - 1, 0)) + 1
        empty = tokens.new_full((side * side - len(tokens),), -1)
        tokens = torch.cat([tokens, empty]).view(side, side)
    golden = 0.6180339887498949
    hue = (tokens.cpu().double() * golden) % 1
    light = 0.45 + 0.5 * ((tokens.cpu().double() * golden * golden) % 1)
    channels = [light * (0.35 + 0.65 * (((hue * 6 + shift) % 6 - 3).abs() - 1).clamp(0, 1)) for shift in (0, 4, 2)]
    picture = (torch.stack(channels) * 255).round().to(torch.uint8).masked_fill(tokens.cpu() < 0, 255)
    sides = (size, size) if isinstance(size, int) else size
    return torch.nn.functional.interpolate(picture[None].float(), size=sides, mode='nearest')[0].to(torch.uint8)
