"""Runs that take a layout and a text, and segmenters of what is drawn, without training them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.denoisers.test_unet import shaken
from tests.shipped import composed
from vq.data.inputs import Intake
from vq.io.spec import Spec
from vq.registries import VQTaskRegistry
from vq.tasks.loaded import LoadedGenerator
from vq.web import detecting, drawing
from vq.web.survey import described

SETTINGS = {'root': 'work_dirs', 'device': 'cpu'}
ASKED = {
    'run': 'mixed',
    'layout': [{'boxes': [[2, 2, 14, 14]], 'categories': [3]}],
    'text': 'a dog',
    'count': 1,
    'seed': 1,
    'settings': {'guidance': 3, 'steps': 2},
}


def tell(*words: Any) -> None:
    """Nobody listens."""


@pytest.fixture(scope='module')
def mixed() -> tuple[Any, LoadedGenerator]:
    """The task of Stable Diffusion 1.5 with boxes, tiny and of random weights, as a run."""
    model = composed('layout/coco_sd15_ddp.py').trainer.model
    task: Any = shaken(VQTaskRegistry.build(model, 'model')).eval()
    run = SimpleNamespace(name='mixed', model=model, spec=Spec('generator', (32, 32)), custom_imports=())
    return run, LoadedGenerator(task, torch.device('cpu'), 'a test', Intake((32, 32)))


@pytest.mark.slow
def test_texts_and_negative_texts_go_with_the_layout(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = mixed
    found = described(run)
    assert found['use'] == ['layout'] and found['kinds'] == ('layout', 'text') and 'guidance' in found['settings']
    assert len(found['names']) == model.task.conditioner.labels
    monkeypatch.setattr(drawing, 'model_of', lambda name, settings: (run, model))
    monkeypatch.setattr(drawing, 'detected', lambda *_: {})
    first = drawing.draw(ASKED, SETTINGS, tell)['images']
    assert drawing.draw(ASKED, SETTINGS, tell)['images'] == first
    for change in ({'text': 'a cat'}, {'negative': 'dark'}, {'text': ''}, {'layout': [{'boxes': [], 'categories': []}]}):
        assert drawing.draw({**ASKED, **change}, SETTINGS, tell)['images'] != first, change
    labels = model.task.conditioner.labels
    with pytest.raises(Exception, match=f'no class {labels}'):
        drawing.draw({**ASKED, 'layout': [{'boxes': [[0, 0, 5, 5]], 'categories': [labels]}]}, SETTINGS, tell)


def test_runs_of_masks_cannot_be_drawn_on_the_page() -> None:
    model = composed('layout/digits_masks.py').trainer.model
    run: Any = SimpleNamespace(model=model, spec=Spec('generator', (32, 32)), custom_imports=())
    assert described(run)['use'] == []


@pytest.mark.parametrize(
    ('kind', 'image', 'names', 'serves'),
    [
        ('segmenter', (32, 32), ('a', 'b'), True),
        ('segmenter', (32, 32), (), True),
        ('segmenter', (64, 64), ('a', 'b'), False),
        ('segmenter', (32, 32), ('a', 'c'), False),
        ('classifier', (32, 32), ('a', 'b'), False),
    ],
)
def test_which_segmenter_detects(kind: str, image: Any, names: Any, serves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the same size and the same classes, as far as these have names; without one there is a note."""
    boxes = [{'boxes': [[1, 2, 3, 4]], 'categories': [1]}]
    other, segmenter = SimpleNamespace(spec=Spec(kind, image, categories=names)), SimpleNamespace(detect=lambda images: boxes)
    monkeypatch.setattr(detecting, 'run_folders', lambda root: {'seg': root})
    monkeypatch.setattr(detecting, 'run_of', lambda name, settings: other)
    monkeypatch.setattr(detecting, 'model_of', lambda name, settings: (other, segmenter))
    run: Any = SimpleNamespace(spec=Spec('generator', (32, 32), categories=('a', 'b')))
    found = detecting.detected(run, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), SETTINGS)
    assert found == ({'detected': boxes, 'segmenter': 'seg'} if serves else {'undetected': detecting.LACKING})
