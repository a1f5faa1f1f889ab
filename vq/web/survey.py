"""What each run can do on the page: reconstruct, draw, by what condition, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vq.core.errors import UserError
from vq.core.registry import find_item
from vq.core.trust import Untrusted, import_modules
from vq.interfaces.drawing import draws_images, kinds_of
from vq.io.runs import Run
from vq.registries import VQTaskRegistry
from vq.web.models import device_of, run_of
from vq.web.places import PUBLISHED, fingerprint, published
from vq.web.worker import NO_TRUST, Telling

_known: dict[tuple[str, str, float], dict[str, Any]] = {}


def survey(asked: Mapping[str, Any], settings: Mapping[str, Any], tell: Telling) -> dict[str, Any]:
    """A record of each run with a checkpoint, and of each published tokenizer. Weights are not read."""
    marks, found = fingerprint(Path(settings['root'])), []
    for number, (name, changed) in enumerate(marks.items()):
        tell(number / len(marks), f'looking at {name}')
        key = settings['root'], name, changed
        if key not in _known:
            _known[key] = examine(name, settings)
        found.append(_known[key])
    return {'runs': [record for record in found if any(record['use'])], 'device': device_of(settings)}


def examine(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``use``: the tabs that the run is for. A run that cannot be opened has its reason in ``error``."""
    record: dict[str, Any] = {'name': name, 'title': name.removeprefix(PUBLISHED), 'published': name in published()}
    try:
        run = run_of(name, settings)
    except UserError:  # it has no complete checkpoint yet
        return {**record, 'use': []}
    try:
        record |= {'about': f'{run.spec}', 'image': run.spec.image, 'weights': run.weights.name}
        return {**record, **described(run)}
    except (UserError, OSError) as error:
        message, hint = (error.message, error.hint) if isinstance(error, UserError) else (str(error), '')
        hint = NO_TRUST if isinstance(error, Untrusted) else hint
        return {**record, 'use': [tab_of(run)], 'error': message, 'hint': hint}


def tab_of(run: Run) -> str:
    """The tab that says why a run cannot be opened."""
    try:
        kind = run.spec.kind
    except (UserError, OSError):
        return 'reconstruct'
    return {'generator': 'generate'}.get(kind, 'reconstruct' if kind in ('tokenizer', 'decoder') else '')


def described(run: Run) -> dict[str, Any]:
    kind = run.spec.kind
    if kind in ('tokenizer', 'decoder'):
        import_modules(run.custom_imports)
        return {'use': ['reconstruct']}
    if kind != 'generator':
        return {'use': []}
    import_modules(run.custom_imports)
    model = run.model
    task_type = find_item(VQTaskRegistry, model.get('type'), 'model')[1]
    with torch.device('meta'):
        task: Any = VQTaskRegistry.build(model, 'model')
    if not draws_images(task):
        return {'use': []}
    kinds = kinds_of(task)
    names = list(run.spec.categories or run.spec.trained_on.get('names') or ())
    of_layout = 'layout' in kinds
    count = getattr(getattr(task, 'conditioner', None), 'labels', 0) if of_layout else task.classes
    if len(names) != count:
        names = [str(number) for number in range(count)]
    return {
        'use': ['layout' if of_layout else 'generate'] if not of_layout or takes_boxes(task) else [],
        'kinds': kinds,
        'names': names,
        'settings': {name: tuple(setting) for name, setting in task_type.settings(model).items() if name != 'history'},
        'completes': hasattr(task, 'given') or bool(task.codebooks),
    }


def takes_boxes(task: Any) -> bool:
    """Whether a layout is made of boxes; others are maps of labels, which the page cannot draw."""
    return hasattr(task.conditioner, 'image_size')
