"""The segmentation task: its loss, its features, and the segmenter that ``vq.load`` gives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import vq
from tests.runners.support import commands_here
from vq.cli.report import main as report
from vq.cli.train import main as train
from vq.cli.val import main as val
from vq.core.errors import ConfigError
from vq.core.records import Batch, to_float
from vq.data.datasets.digits_canvas import DigitsCanvasDataset
from vq.encoders.convolutional import ConvEncoder
from vq.io import atomic
from vq.io.layouts import read_layouts
from vq.tasks.image_segmentation.task import ImageSegmentation
from vq.teachers.classifier import classifier_features


def task(weight: float = 1.0) -> ImageSegmentation:
    torch.manual_seed(0)
    shape = dict(multipliers=(1, 1), residual_blocks=1, attention_levels=(), refine=False)
    backbone = ConvEncoder(4, in_channels=12, out_channels=6, norm='batch', **shape)
    return ImageSegmentation(backbone, labels=3, patch=2, nothing_weight=weight)


def batch(rows: int = 2) -> Batch:
    stream = torch.Generator().manual_seed(1)
    image = torch.randint(256, (rows, 3, 8, 12), dtype=torch.uint8, generator=stream)
    mask = torch.randint(4, (rows, 8, 12), generator=stream)
    return Batch(image, [*map(str, range(rows))], torch.arange(rows), mask=torch.where(mask == 3, 255, mask))


def test_pixels_of_nothing_count_less_in_the_loss() -> None:
    found, given = task(0.25), batch()
    ((name, losses),) = found.training_step(given, found.roots(), 1)
    logits, labels = found.network(to_float(given.image)), found.targets(given)
    weights = torch.where(labels == 3, 0.25, 1.0)
    expected = (weights * F.cross_entropy(logits, labels, reduction='none')).sum() / weights.sum()
    assert name == 'segmenter' and logits.shape == (2, 4, 8, 12)
    torch.testing.assert_close(losses.total, expected)
    assert torch.equal(found.validation_step(given).labels, found.network(to_float(given.image)).argmax(1))


def test_features_are_means_and_logits_are_shares_of_the_image() -> None:
    found, image = task().eval(), to_float(batch().image)
    pooled, logits = found.represent(image)
    torch.testing.assert_close(pooled, found.network.features(image).mean((2, 3)))
    shares = found.network(image).softmax(1).mean((2, 3))
    torch.testing.assert_close(logits.exp(), shares[:, :3])
    assert (logits < math.log(1.0)).all()


def test_what_does_not_fit_says_so() -> None:
    with pytest.raises(ConfigError, match='labels is 0'):
        ImageSegmentation(ConvEncoder(4, (1,), 1, ()), labels=0)
    with pytest.raises(ConfigError, match='this dataset gives none'):
        task().validation_step(Batch(batch().image, ['0', '1'], torch.arange(2)))


@pytest.mark.slow
def test_a_run_finds_boxes_and_gives_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its names of classes are those of the labels, and what it finds is a layout file."""
    monkeypatch.chdir(tmp_path)
    with commands_here():
        assert train(['segmenter', 'configs/layout/digits_segmenter.py']) == 0
        assert val(['segmenter']) == 0 and 'mean_iou' in capsys.readouterr().out
        assert report(['segmenter']) == 2 and 'Measure it: vq val segmenter' in capsys.readouterr().err
    run = tmp_path / 'work_dirs/dry_run/segmenter'
    loaded = vq.load(run)
    assert loaded.class_names == tuple('0123456789')
    sample = DigitsCanvasDataset('validation', image_size=32, smallest=8, largest=14).canvas(0)
    images = torch.from_numpy(sample.image)[None, None].expand(2, 3, -1, -1)
    labels = loaded.segment(images)
    assert labels.shape == (2, 32, 32) and torch.equal(labels[0], loaded.model.segment(to_float(images))[0])
    monkeypatch.setattr(loaded, 'segment', lambda *_: torch.from_numpy(sample.mask).clamp(max=10)[None])
    found = loaded.detect(images)
    true = sorted(zip(sample.boxes.tolist(), sample.categories.tolist(), strict=True))
    assert sorted(zip(found[0]['boxes'], found[0]['categories'], strict=True)) == true and len(found) == 1
    atomic.write_json(tmp_path / 'found.json', found)
    layout = read_layouts(tmp_path / 'found.json', loaded.class_names)
    assert layout.box_categories[0].tolist() == found[0]['categories']
    features = classifier_features(run)
    assert features(images).pooled.shape == (2, 16) and features(images).logits.shape == (2, 10)
