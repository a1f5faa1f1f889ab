"""Digits at boxes, from nothing, in a minute of CPU time: they lie in the boxes, and without the layout they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import vq
from tests.runners.support import commands_here
from vq.cli.train import main as train
from vq.core.conditions import Condition
from vq.core.random import python_stream
from vq.data.collate import collate
from vq.data.datasets.digits_canvas import INK, DigitsCanvasDataset

pytestmark = pytest.mark.slow
CANVASES = 24


def test_what_is_drawn_lies_in_the_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped config with 120 of its steps: too few to tell digits apart, which benchmarks/layout_digits.py measures."""
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=False):
        assert train(['boxes', 'configs/layout/digits.py', 'iters=120', 'pictures_every=1000']) == 0
    dataset = DigitsCanvasDataset('validation')
    batch = collate([dataset.load(index, python_stream(index)) for index in range(CANVASES)])
    inside = torch.zeros(CANVASES, 64, 64, dtype=torch.bool)
    for row in range(CANVASES):
        for left, top, right, bottom in batch.boxes[row][batch.boxes_mask[row]].int().tolist():
            inside[row, top:bottom, left:right] = True

    def share(images: Tensor) -> float:
        ink = images[:, 0] >= INK
        return float((ink & inside).sum() / ink.sum())

    layout = Condition(boxes=batch.boxes, box_categories=batch.box_categories, boxes_mask=batch.boxes_mask)
    loaded = vq.load('boxes')
    assert share(batch.image) == 1
    assert share(loaded.sample(layout=layout, count=CANVASES)) >= 0.7
    assert share(loaded.sample(layout=layout.taken([*range(1, CANVASES), 0]), count=CANVASES)) <= 0.4, 'of others'
    assert share(loaded.sample(count=CANVASES, guidance=1.0)) <= 0.4, 'without the layout: boxes cover a quarter of a canvas'
