"""What a segmenter finds in drawn images, to be shown over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vq.core.errors import UserError
from vq.io.runs import Run
from vq.web.models import model_of, run_of
from vq.web.places import run_folders

KIND = 'segmenter'
LACKING = (
    'boxes detected: not shown, no run here is a segmenter of this size and these classes; of digits, make demo-layout or '
    'vq train layout_segmenter layout/digits_segmenter.py trains one'
)


def detected(run: Run, images: Tensor, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``detected``: a layout for each of the images (B, 3, H, W) uint8 that ``run`` drew, or ``undetected``: why there are
    none. The segmenter is a run of the same size of images, and of the same classes where both have names of them; the first
    one by name."""
    name = next((name for name in run_folders(Path(settings['root'])) if fits(name, run, settings)), None)
    if name is None:
        return {'undetected': LACKING}
    try:
        _, segmenter = model_of(name, settings)
        return {'detected': segmenter.detect(images), 'segmenter': name}
    except UserError as error:
        return {'undetected': f'boxes detected: {name} cannot be used: {error.message}'}


def fits(name: str, run: Run, settings: Mapping[str, Any]) -> bool:
    try:
        spec = run_of(name, settings).spec
    except (UserError, OSError):  # it has no checkpoint yet, or a damaged one
        return False
    names, own = spec.categories, run.spec.categories
    return spec.kind == KIND and spec.image == run.spec.image and (names == own or not names or not own)
