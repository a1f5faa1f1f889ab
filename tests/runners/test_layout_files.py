"""Files of images of a validation by layouts: the layout reads back, the array is what was drawn, boxes are on pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vq.core.errors import ConfigError
from vq.core.random import python_stream
from vq.core.records import Outputs
from vq.data.collate import collate
from vq.data.datasets.digits_canvas import DigitsCanvasDataset
from vq.io.layouts import read_layouts
from vq.runners.callbacks.layout_files import LayoutFilesCallback


def test_the_first_images_have_their_files(tmp_path: Path) -> None:
    dataset = DigitsCanvasDataset('validation')
    batch = collate([dataset.load(index, python_stream(index)) for index in range(3)])
    drawn = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    callback = LayoutFilesCallback(2)
    callback.bind(SimpleNamespace(dataset=dataset, work_dir=tmp_path))
    callback.before_run()
    for _ in range(2):
        callback.after_batch(batch, Outputs(pictures={'generated': drawn}))
    files = sorted(path.name for path in (tmp_path / 'layouts').iterdir())
    assert len(files) == 2 * 6 and not [name for name in files if '000002' in name]
    for row in range(2):
        place = tmp_path / 'layouts' / f'digits_canvas_validation_{row:06d}'
        layout, kept = read_layouts(Path(f'{place}.txt'), dataset.label_names, size=(64, 64)), batch.boxes_mask[row]
        assert torch.equal(layout.boxes[0], batch.boxes[row][kept])
        assert torch.equal(layout.box_categories[0], batch.box_categories[row][kept])
        assert np.array_equal(np.load(f'{place}.npy'), drawn[row].permute(1, 2, 0).numpy())
        truth, made, boxes = (np.asarray(Image.open(f'{place}.{name}.png')) for name in ('truth', 'drawn', 'boxes'))
        assert np.array_equal(made, ((drawn[row] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        changed = (truth != batch.image[row].permute(1, 2, 0).numpy()).any(2)
        left, top, right, bottom = (int(side) for side in batch.boxes[row, 0])
        assert changed[top, left:right].all() and changed[top:bottom, left].all() and (boxes != made).any()


def test_what_lacks_boxes_is_refused(tmp_path: Path) -> None:
    callback = LayoutFilesCallback()
    callback.bind(SimpleNamespace(dataset=DigitsCanvasDataset(), work_dir=tmp_path))
    callback.before_run()
    batch = collate([DigitsCanvasDataset().load(0, python_stream(0))])
    with pytest.raises(ConfigError, match='needs boxes and drawn images'):
        callback.after_batch(batch, Outputs())
    with pytest.raises(ConfigError, match='count 0'):
        LayoutFilesCallback(0)
