"""An image through a tokenizer: what comes back, where it differs, its tokens, and how many bits they are."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io.pictures import token_map
from vq.loading import LoadedTokenizer
from vq.web.drawing import pixels
from vq.web.models import as_url, model_of
from vq.web.worker import Telling

CELLS = 4096  # tokens that are sent as numbers, at most
RAW_BITS = 24  # of a pixel


def reconstruct(asked: Mapping[str, Any], settings: Mapping[str, Any], tell: Telling) -> dict[str, Any]:
    """``asked``: the run, and ``image`` as base64."""
    image = pixels(asked.get('image'))
    tell(None, 'loading the model')
    run, model = model_of(asked.get('run'), settings)
    if not isinstance(model, LoadedTokenizer):
        raise UserError(f'{run.name} is no tokenizer', 'Choose the run of a tokenizer.')
    tell(None, 'reconstructing')
    started, codec = time.perf_counter(), model.model
    given = model.prepare(image)[0].cpu()  # (3, H, W) uint8
    height, width = (int(side) for side in given.shape[1:])
    found: dict[str, Any] = {'given': as_url(given), 'size': [width, height]}
    if codec.can_decode:
        made = model.reconstruct(given)[0].cpu()
        found |= {'made': as_url(made), **differences(given, made)}
    if not model.continuous:
        tokens = model.tokenize(given)[0].cpu()
        spec = codec.token_spec((height, width))
        found |= {
            'tokens': as_url(token_map(tokens, (height, width))),
            'cells': [*spec.shape],
            'codes': [*spec.codebooks],
            'different': len(set(tokens.flatten().tolist())),
            'bits': spec.bits,
            'share': spec.bits / (RAW_BITS * height * width),
        }
        if tokens.ndim == 2 and tokens.numel() <= CELLS:
            found['numbers'] = tokens.tolist()
    else:
        latent = model.encode(given)[0]
        found['latent'] = [*latent.shape]
    return found | {'seconds': round(time.perf_counter() - started, 2)}


def differences(given: Tensor, made: Tensor) -> dict[str, Any]:
    """A picture of |x' - x|, the mean of the channels, as bright as its largest value; and figures of it."""
    error = (made.double() - given.double()).abs()
    squared = float((error / 255).square().mean())
    each = error.mean(0)  # (H, W)
    largest = float(each.max())
    return {
        'error': as_url(glow(each / max(largest, 1.0))),
        'largest': largest / 255,
        'mean': float(each.mean()) / 255,
        'psnr': None if squared == 0 else -10 * math.log10(squared),
    }


def glow(values: Tensor) -> Tensor:
    """(H, W) in [0, 1] -> (3, H, W) uint8: black, violet, orange, white."""
    stops = torch.tensor([[0, 0, 0], [96, 20, 110], [200, 60, 70], [250, 160, 40], [255, 255, 230]], dtype=torch.float64)
    place = values.clamp(0, 1) * (len(stops) - 1)
    low = place.floor().long().clamp(max=len(stops) - 2)
    part = (place - low)[..., None]
    return (stops[low] * (1 - part) + stops[low + 1] * part).round().to(torch.uint8).permute(2, 0, 1)
