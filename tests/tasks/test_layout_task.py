"""The task of configs/layout in its tiny form: what is drawn by layouts and texts, what trains, and a resume."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vq
from tests.denoisers.test_unet import shaken
from tests.shipped import composed
from vq.assembly.compose import compose
from vq.assembly.memory import footprints
from vq.core.drawing import Wanted
from vq.core.random import python_stream
from vq.data.collate import collate
from vq.data.datasets.digits_canvas import DigitsCanvasDataset
from vq.interfaces.conditions import Asked
from vq.interfaces.pretrained import freeze
from vq.io import tensorfile
from vq.registries import VQTaskRegistry

CPU = torch.device('cpu')
FIELDS = ('boxes', 'box_categories', 'boxes_mask')


@pytest.fixture(scope='module')
def task() -> Any:
    """That of Stable Diffusion 1.5 with adapters, every weight random."""
    found: Any = shaken(VQTaskRegistry.build(composed('layout/coco_sd15_ddp.py').trainer.model, 'model'))
    freeze(found)
    return found


@pytest.fixture(scope='module')
def batch() -> Any:
    data = DigitsCanvasDataset('validation', image_size=32, smallest=8, largest=14, text=True, count=6)
    return collate([data.load(index, python_stream('test')) for index in range(6)])


def drawn(task: Any, asked: Asked, guidance: float = 3.0) -> Tensor:
    wanted = Wanted([0, 1], 7, task.condition(asked, [0, 1], CPU))
    return task.drawing({'guidance': guidance}).draw(wanted).images()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_texts_negative_texts_and_layouts_change_the_image(task: Any, batch: Any) -> None:
    layout = task.condition(Asked(), [0], CPU)
    assert layout is None and task.kinds == ('layout', 'text') and task.asks == 'layout'
    both = Asked(text=['three'], layout=task.unpack(batch)[1].taken([0, 1]))
    first = drawn(task, both)
    assert torch.equal(drawn(task, both), first)
    others = dict(
        text=both._replace(text=['nine']),
        negative=both._replace(negative=['dark']),
        another=both._replace(negative=['bright']),
        layout=both._replace(layout=task.unpack(batch)[1].taken([2, 3])),
        none=both._replace(layout=None),
    )
    found = {name: drawn(task, asked) for name, asked in others.items()}
    assert all(not torch.allclose(image, first, atol=1e-4) for image in found.values())
    assert not torch.allclose(found['negative'], found['another'], atol=1e-4)
    plain = drawn(task, both, guidance=1.0)
    torch.testing.assert_close(drawn(task, others['negative'], guidance=1.0), plain)  # without guidance it says nothing


def test_the_null_of_guidance_is_what_training_learns(task: Any, batch: Any) -> None:
    """A row that lost everything, a row that is drawn without a condition, and no box with the empty text: one pass."""
    condition = task.unpack(batch)[1]
    root = task.roots()['denoiser']
    z, t = torch.randn(6, 4, 4, 4), torch.full((6,), 0.5)
    everything = root(z, t, condition.without(torch.ones(6).bool()))[0].value
    torch.testing.assert_close(root(z, t, None)[0].value, everything)
    condition = task.unpack(batch)[1]
    condition.boxes_mask, condition.text = torch.zeros_like(condition.boxes_mask), [''] * 6
    torch.testing.assert_close(root(z, t, condition)[0].value, everything)


def test_batches_with_different_numbers_of_boxes_train_the_adapters_alone(task: Any, batch: Any) -> None:
    assert len({int(row.sum()) for row in batch.boxes_mask}) > 1, 'the samples have one number of boxes'
    task.train()
    freeze(task)
    ((name, losses),) = task.training_step(batch, task.roots(), 1)
    losses.total.backward()
    assert set(losses.values) == {'denoising', 'elbo'} and losses.values['elbo'] > 0
    assert name == 'denoiser' and torch.isfinite(losses.total)
    learned = {key for key, value in task.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    assert learned and all('.adapters.' in key or key.endswith('layout.table.weight') for key in learned)
    assert 'conditioner.parts.layout.table.weight' in learned
    assert not any('encoder' in key for key in task.state_dict() if key in learned)
    task.zero_grad()
    task.eval()


@contextlib.contextmanager
def quiet_runs(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv('DRY_RUN', 'True')
        yield


@pytest.mark.slow
def test_a_resume_keeps_the_state_of_the_optimizer(tmp_path: Path) -> None:
    """Adapters and the class table alone train; 4 steps and 4 after a resume end with the bits of 8 steps."""
    settings: dict[str, Any] = dict(config='layout/coco_sd15_ddp.py')
    with quiet_runs(tmp_path):
        whole = vq.run_training(name='whole', **settings)
        part = vq.run_training(name='part', override={'.trainer.iters': 4}, **settings)
        assert part.step == 4
        resumed = vq.run_training(name='part', auto_resume=True, change=True, **settings)
        assert resumed.step == whole.step == 8
        files = [trained.checkpoint / 'model.safetensors' for trained in (whole, resumed)]  # type: ignore[operator]
        one, other = (tensorfile.read_tensors(file) for file in files)
        assert set(one) == set(other) and all(torch.equal(value, other[key]) for key, value in one.items())
        assert not any('encoder' in key for key in one), 'the frozen text encoder is in the checkpoint'


@pytest.mark.slow
def test_the_memory_of_a_step_is_estimated_without_its_data() -> None:
    """Texts and boxes are made up; frozen weights have no gradients."""
    one = footprints(composed('layout/coco_sd15_ddp.py'), [1])[0]
    whole = footprints(compose('configs/layout/coco_sd15_ddp.py', {'trains': 'all'}, {}, tiny=True), [1])[0]
    fewer = whole.parts['gradients'] - one.parts['gradients']
    assert fewer > 0.8 * whole.parts['gradients'] and one.parts['frozen'] - whole.parts['frozen'] == fewer
    assert one.total is not None and whole.total is not None and 0 < one.total < whole.total
