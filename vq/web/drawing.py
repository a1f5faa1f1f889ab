"""New images for the page: of a layout, of classes, of a text, or completing half of an image that is given."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.core.records import to_uint8
from vq.data.decode import BadImage, decode_image
from vq.io.layouts import layouts_in
from vq.io.runs import Run
from vq.tasks.loaded import LoadedGenerator
from vq.web.detecting import detected
from vq.web.models import as_url, model_of, sheet_url, whole_number
from vq.web.worker import Telling

MOST = 16  # images at once
BOXES = 200  # in a layout
SEEDS = 2**31 - 1
STEPS = 1000
LONGEST = 1000  # characters of a text


def draw(asked: Mapping[str, Any], settings: Mapping[str, Any], tell: Telling) -> dict[str, Any]:
    """``asked``: the run, ``count``, ``seed``, ``settings`` of its task, and what it takes: ``layout``, ``classes``, ``text``,
    ``half`` (an image as base64)."""
    count, seed = whole_number(asked.get('count'), 1, MOST, 'count'), whole_number(asked.get('seed'), 0, SEEDS, 'seed')
    tell(None, 'loading the model')
    run, model = model_of(asked.get('run'), settings)
    if not isinstance(model, LoadedGenerator):
        raise UserError(f'{run.name} draws no images', 'Choose the run of a generator.')
    started = time.perf_counter()

    def watch(share: float, shown: Callable[[], Tensor] | None) -> None:
        tell(share, 'drawing', None if shown is None else lambda: sheet_url(shown()))

    tell(0.0, 'drawing')
    how = {**wanted(asked, run, model), **numbers(asked.get('settings') or {}), 'seed': seed, 'watch': watch}
    result: dict[str, Any] = {}
    if asked.get('half') is not None:
        image = pixels(asked['half'])
        images = model.complete([image] * count, how.pop('classes', None), **how)
        result['given'] = as_url(to_uint8(torch.cat([*model.intake.batches(image, model.device)]))[0])
    else:
        images = model.sample(count=count, **how)
    if 'layout' in how:
        tell(1.0, 'detecting')
        result |= detected(run, images, settings)
    return {
        **result,
        'images': [as_url(picture) for picture in images],
        'size': [int(images.shape[3]), int(images.shape[2])],
        'seconds': round(time.perf_counter() - started, 2),
    }


def wanted(asked: Mapping[str, Any], run: Run, model: LoadedGenerator) -> dict[str, Any]:
    """The condition, as ``LoadedGenerator.sample`` takes it."""
    found: dict[str, Any] = {}
    if asked.get('layout') is not None:
        rows = asked['layout'] if isinstance(asked['layout'], list) else [asked['layout']]
        if len(rows) != 1 or not isinstance(rows[0], Mapping) or len(rows[0].get('boxes') or ()) > BOXES:
            raise UserError(f'a drawing needs one layout of at most {BOXES} boxes', 'Delete some boxes.')
        count = getattr(getattr(model.task, 'conditioner', None), 'labels', None)
        found['layout'] = layouts_in(rows, 'the page', run.spec.categories, count)
    if asked.get('classes') is not None:
        found['classes'] = [*asked['classes']]
    for name in ('text', 'negative'):
        if asked.get(name):
            if not isinstance(asked[name], str) or len(asked[name]) > LONGEST:
                raise UserError('the text is too long', f'Write at most {LONGEST} characters.')
            found[name] = asked[name]
    return found


def numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the task without those that are left to its config. The task itself refuses the others that it has not."""
    found = {name: value for name, value in given.items() if value not in (None, '')}
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and not (math.isfinite(value) and abs(value) <= 1e6):
            raise UserError(f'{name} is {value}', 'Give a smaller number.')
    for name in ('steps', 'num_iter', 'top_k'):
        if name in found:
            whole_number(found[name], 1, STEPS if name != 'top_k' else 2**31, name)
    if not found.get('greedy', True):
        del found['greedy']
    return found


def pixels(data: Any) -> Any:
    """An image (H, W, 3) of a file as base64."""
    from PIL import Image

    try:
        return Image.fromarray(decode_image(base64.b64decode(data)))
    except BadImage as error:
        raise UserError(f'the image {error.reason}', 'Take another file.') from error
