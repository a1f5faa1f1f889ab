"""What cannot work is found before the first step, and the checks change no bit of the run."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.messy import make
from tests.runners.support import assert_same, everything, logged, train, write_config
from vq.data.datasets.digits import DigitsDataset
from vq.data.held_out import place_of
from vq.interfaces import Callback, Metric
from vq.metrics.image import PSNRMetric
from vq.registries import VQCallbackRegistry, VQMetricRegistry
from vq.runners import preflight as checks
from vq.runners import trainer as trainers

EVALUATED = ['.trainer.callbacks.evaluate:dict(type="EvalCallback", interval=4, limit=8)', '.trainer.iters:4']
ONE_STEP = ['.trainer.iters:1', '.trainer.optimizers.tokenizer.schedule.warmup:0']


@VQMetricRegistry.register_('BreaksInUpdate')
class BreaksInUpdate(PSNRMetric):
    def update(self, *arguments: Any) -> None:
        raise RuntimeError('this metric does not fit the model')


@VQCallbackRegistry.register_('KeepsAnObject')
class KeepsAnObject(Callback[Any]):
    def state_dict(self) -> dict[str, Any]:
        return {'object': object()}


def run(folder: Path, *overrides: str, code: int = 0) -> Path:
    config = write_config(folder)
    assert train(str(folder), 'run', str(config), '--override', *EVALUATED, *overrides) == code
    return folder / 'work_dirs/run'


@pytest.mark.slow
def test_the_checks_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is drawn in every step, batch statistics are buffers, and the moving average is evaluated."""
    (tmp_path / 'with').mkdir()
    (tmp_path / 'without').mkdir()
    checked = run(tmp_path / 'with')
    assert 'preflight passed' in (checked / 'log.txt').read_text() and not (checked / '.preflight').exists()
    monkeypatch.setattr(trainers, 'preflight', lambda trainer: None)
    plain = run(tmp_path / 'without')
    assert 'preflight passed' not in (plain / 'log.txt').read_text()
    assert_same(everything(checked / 'checkpoints/iter_4'), everything(plain / 'checkpoints/iter_4'))


@pytest.mark.parametrize(
    ('override', 'words', 'code'),
    [
        ('.validator.metrics.broken:dict(type="BreaksInUpdate")', 'this metric does not fit the model', 1),
        ('.validator.dataset:dict(type="FolderDataset", root="nowhere", split="val")', 'nowhere', 2),
        ('.trainer.callbacks.own:dict(type="KeepsAnObject")', 'a checkpoint holds only tensors', 1),
    ],
)
def test_it_fails_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, words: str, code: int
) -> None:
    folder = run(tmp_path, override, code=code)
    assert words in capsys.readouterr().err
    assert not (folder / 'log.jsonl').exists() or not logged(folder)
    assert not (folder / '.preflight').exists() and not (folder / 'checkpoints').exists()


def test_a_full_disk_is_found_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10, 9, 1))
    run(tmp_path, code=2)
    error = capsys.readouterr().err
    assert 'GiB free, and two checkpoints need about' in error and 'choose another place with --work-dir' in error


class _Labels(DigitsDataset):
    """Labels without names."""

    def __init__(self) -> None:
        super().__init__('train')
        self.categories = None

    def category_of(self, index: int) -> int:
        return index


def test_categories_fit_the_classes() -> None:
    model = torch.nn.Module()
    model.classes = 9  # type: ignore[assignment]
    with pytest.raises(checks.UserError, match='the training set has 10 classes and the model 9'):
        checks._check_data(DigitsDataset('train'), 'training', model)  # type: ignore[arg-type]
    with pytest.raises(checks.UserError, match='has category 718, and the model has the classes 0 to 8'):
        checks._check_data(_Labels(), 'training', model)  # type: ignore[arg-type]
    model.classes = 0  # type: ignore[assignment]
    checks._check_data(_Labels(), 'training', model)  # type: ignore[arg-type]
    assert issubclass(BreaksInUpdate, Metric)


@pytest.mark.slow
def test_a_step_larger_than_the_memory_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vq.assembly import free_memory

    monkeypatch.setattr(free_memory, 'WORTH_ESTIMATING', 0)
    monkeypatch.setattr(free_memory, 'free_bytes', lambda trainer: 2**12)
    run(tmp_path)
    error = capsys.readouterr().err
    assert 'and 0.0 GiB are free: the system may kill the process. Not even one image fits' in error
    assert error.index('GiB are free') < error.index('preflight passed')


@pytest.mark.slow
def test_the_largest_batch_that_fits_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more image than the batch of the message does not fit, by the estimates for both."""
    from vq.assembly import free_memory
    from vq.assembly.compose import compose

    config = compose(str(write_config(tmp_path)), {'batch_size': 64}, {})
    needed = {images: free_memory.estimate(config, 1, 'base', images).total for images in (40, 41)}  # type: ignore[union-attr]
    free = (needed[40] + needed[41]) // 2  # type: ignore[operator]
    monkeypatch.setattr(free_memory, 'WORTH_PIXELS', 64 * 32**2)
    monkeypatch.setattr(free_memory, 'free_bytes', lambda trainer: free)
    run(tmp_path, '.trainer.dataloader.batch_size:64', *ONE_STEP)
    assert 'Set batch_size to at most 40, or split the batch with accumulate' in capsys.readouterr().err


# mistakes about data


@pytest.mark.parametrize(
    ('overrides', 'words', 'hint'),
    [
        (
            ['.trainer.dataset.image_size:27'],
            'images of 27 x 27 pixels, the image_size of trainer.dataset, do not divide into cells of 2 pixels',
            'Choose image_size as a multiple of 2: 26 or 28.',
        ),
        (['.validator.dataset.image_size:27'], 'the image_size of validator.dataset,', '26 or 28.'),
        (
            ['.trainer.dataset:dict(type="FolderDataset", root="data/images")'],
            'the dataset folder data/images does not exist',
            'data_root=FOLDER',
        ),
        (
            ['.trainer.dataset:dict(type="FolderDataset", root="pictures", held_out=0.1)'],
            "the dataset folder pictures does not exist; did you mean 'picture'?",
            'data_root=FOLDER',
        ),
        (
            ['.trainer.dataset:dict(type="FolderDataset", root="picture", held_out=0.1)'],
            'all images of picture lie below images/, so picture is not the root',
            'Set data_root to picture/images.',
        ),
    ],
)
def test_mistakes_about_data_are_answered_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], words: str, hint: str
) -> None:
    for name in ('a/1', 'b/2'):
        (tmp_path / f'picture/images/{name}.png').parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (32, 32)).save(tmp_path / f'picture/images/{name}.png')
    folder = run(tmp_path, *overrides, code=2)
    error = capsys.readouterr().err
    assert words in error
    assert hint in error.strip().splitlines()[-1]
    assert (not (folder / 'checkpoints').exists() and not (folder / 'log.jsonl').exists()) or not logged(folder)


@pytest.mark.slow
def test_doubts_about_sizes_and_batches_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        tmp_path,
        '.validator.dataset.image_size:16',
        '.trainer.dataset.split::validation',
        '.trainer.dataloader.batch_size:200',
        *ONE_STEP,
    )
    error = capsys.readouterr().err
    assert 'training images have image_size 32 and validation images 16' in error
    said = 'a step takes 200 images and the training set has 180, so that a step repeats images'
    assert error.index(said) < error.index('preflight passed')


FLAT = [
    '.trainer.dataset:dict(type="FolderDataset", root="photos", held_out=0.3, transform=dict(type="strong", image_size=32))',
    '.validator.dataset:dict(type="FolderDataset", root="photos", held_out=0.3, split="val", '
    'transform=dict(type="none", image_size=32))',
    '.trainer.dataloader.bad_images::skip',
    '.validator.dataloader.bad_images::skip',
]


@pytest.mark.slow
def test_a_messy_folder_without_splits_is_trained_on_and_validated(tmp_path: Path) -> None:
    messy = make(tmp_path / 'photos', images=24)
    folder = run(tmp_path, *FLAT, '.trainer.dataloader.batch_size:4')
    text = (folder / 'log.txt').read_text()
    held = sum(place_of(name) < 3000 for name in (*messy.good, *messy.bad))
    total = len(messy.good) + len(messy.bad)
    assert f'{total - held} of its {total} images are to train on' in text
    assert f'{held} of its {total} images are held out for validation' in text
    assert 'skipped bad image' in text


def test_a_validation_set_without_a_good_image_ends_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messy = make(tmp_path / 'photos', images=12, broken=False)
    for name in messy.good:
        if place_of(name) < 3000:
            (messy.folder / name).write_bytes(b'')
    folder = run(tmp_path, *FLAT, '.trainer.dataloader.batch_size:4', code=1)
    assert not (folder / 'log.jsonl').exists() or not logged(folder)
    assert 'images of photos, split validation, can be read' in capsys.readouterr().err


def test_a_model_of_classes_needs_them_and_extra_ones_are_said(caplog: pytest.LogCaptureFixture) -> None:
    model = torch.nn.Module()
    model.classes = 12  # type: ignore[assignment]
    checks._check_data(DigitsDataset('train'), 'training', model)  # type: ignore[arg-type]
    assert 'the training set has 10 classes and the model 12: 2 are never seen' in caplog.text
    flat = _Labels()
    flat.category_of = lambda index: None  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(checks.UserError, match=r'the model learns 12 classes, and .* of the training set has none') as raised:
        checks._check_data(flat, 'training', model)  # type: ignore[arg-type]
    assert 'one folder for each class' in raised.value.hint


def test_the_free_memory_is_that_of_this_machine() -> None:
    from vq.assembly.free_memory import free_bytes
    from vq.strategies.base import BaseStrategy

    found = free_bytes(SimpleNamespace(strategy=BaseStrategy('cpu')))  # type: ignore[arg-type]
    assert found is not None and 2**20 < found < 2**50
