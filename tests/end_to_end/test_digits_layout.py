"""Digits at boxes, from nothing, in a minute of CPU time: they lie in the boxes and are the digits that were asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import vq
from tests.runners.support import commands_here
from vq.cli.train import main as train
from vq.core.conditions import Condition
from vq.core.random import python_stream
from vq.core.records import Batch
from vq.data.collate import collate
from vq.data.datasets.digits_canvas import INK, DigitsCanvasDataset
from vq.metrics.crops import crops_of

pytestmark = pytest.mark.slow
CANVASES = 40


def canvases(split: str, count: int) -> Batch:
    dataset = DigitsCanvasDataset(split)
    return collate([dataset.load(index, python_stream(index)) for index in range(count)])


def crops(images: Tensor, batch: Batch) -> NDArray[np.float64]:
    """(R, 64), from 0 to 16 as in the data of scikit-learn."""
    found = crops_of(images, batch.boxes, batch.boxes_mask, 8)[:, 0]
    return found.flatten(1).double().numpy() * (16 / 255)


def classes(batch: Batch) -> NDArray[np.int64]:
    return batch.box_categories[batch.boxes_mask].numpy()


def test_digits_are_those_asked_for_and_lie_in_their_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped config with 140 steps of half a batch. The judge is a support vector machine, on crops of 8 x 8."""
    from sklearn.svm import SVC

    monkeypatch.chdir(tmp_path)
    learned, batch = canvases('train', 600), canvases('validation', CANVASES)
    judge, wanted = SVC(gamma=0.001).fit(crops(learned.image, learned), classes(learned)), classes(batch)

    def agreement(images: Tensor, asked: NDArray[np.int64]) -> float:
        return float((judge.predict(crops(images, batch)) == asked).mean())

    assert agreement(batch.image, wanted) >= 0.9, 'of real canvases'
    with commands_here(dry=False):
        assert train(['boxes', 'configs/layout/digits.py', 'iters=140', 'batch_size=16', 'pictures_every=1000']) == 0
    loaded = vq.load('boxes')
    layout = Condition(boxes=batch.boxes, box_categories=batch.box_categories, boxes_mask=batch.boxes_mask)
    drawn = loaded.sample(layout=layout, count=CANVASES)
    free = loaded.sample(count=CANVASES, guidance=1.0)
    assert agreement(drawn, wanted) >= 0.5
    assert agreement(drawn, np.random.default_rng(0).permutation(wanted)) <= 0.3, 'the check sees what was asked for'
    assert agreement(free, wanted) <= 0.3, 'without the layout'

    inside = torch.zeros(CANVASES, 64, 64, dtype=torch.bool)
    for row in range(CANVASES):
        for left, top, right, bottom in batch.boxes[row][batch.boxes_mask[row]].int().tolist():
            inside[row, top:bottom, left:right] = True

    def share(images: Tensor) -> float:
        ink = images[:, 0] >= INK
        return float((ink & inside).sum() / ink.sum())

    assert share(batch.image) == 1
    assert share(drawn) >= 0.7
    assert share(free) <= 0.4, 'without the layout: boxes cover a quarter of a canvas'
    others = layout.taken([*range(1, CANVASES), 0])
    assert share(loaded.sample(layout=others, count=CANVASES)) <= 0.4, 'of others'
