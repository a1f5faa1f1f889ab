"""The models that the worker has loaded, and pictures as the page takes them."""

from __future__ import annotations

import base64
import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io.pictures import grid, png_bytes
from vq.io.runs import Run, find
from vq.loading import load_run
from vq.report.opening import Asked, open_run
from vq.web.places import place_of

KEPT = 3  # models in memory

_loaded: collections.OrderedDict[tuple[str, int], Any] = collections.OrderedDict()


def run_of(name: Any, settings: Mapping[str, Any]) -> Run:
    """The run below the folder of all runs. None of its code is trusted."""
    return find(place_of(name, Path(settings['root'])).absolute())


def model_of(name: Any, settings: Mapping[str, Any]) -> tuple[Run, Any]:
    """The run, and what ``vq.load`` gives for it. The last ``KEPT`` models stay in memory."""
    device = device_of(settings)
    place = place_of(name, Path(settings['root'])).absolute()
    return open_run(str(place), Asked(device=device), lambda run: _kept(run, device))


def _kept(run: Run, device: str) -> Any:
    key = str(run.weights), run.file().stat().st_mtime_ns
    if key not in _loaded:
        while len(_loaded) >= KEPT:
            _loaded.popitem(last=False)
        _loaded[key] = load_run(run, device)
    _loaded.move_to_end(key)
    return _loaded[key]


def device_of(settings: Mapping[str, Any]) -> str:
    if settings['device'] != 'auto':
        return str(settings['device'])
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def as_url(picture: Tensor) -> str:
    """(3, H, W) uint8 -> a data URL."""
    return url_of_png(png_bytes(picture.cpu()))


def url_of_png(png: bytes) -> str:
    return f'data:image/png;base64,{base64.b64encode(png).decode()}'


def sheet_url(images: Tensor) -> str:
    """(B, 3, H, W), float in [-1, 1] or uint8, side by side."""
    return as_url(grid(images, columns=min(4, len(images)), gap=1))


def whole_number(value: Any, low: int, high: int, what: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise UserError(f'{what} is {value!r:.40}', f'Give a whole number from {low:,} to {high:,}.')
    return value
