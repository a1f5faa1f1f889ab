"""``vq sample --protocol``: images, layouts and their record; the figures of the folder are those of what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import vq
from tests.metrics.test_scenes import Mean
from tests.runners.support import commands_here
from vq.cli.layout_figures import main as layouts
from vq.cli.protocol import Asking
from vq.cli.sample import main as sample
from vq.cli.train import main as train
from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.data.datasets.digits_canvas import DigitsCanvasDataset
from vq.data.protocol_folder import DrawnLayouts, write_truth
from vq.data.protocols import ids_digest, protocol_named
from vq.interfaces.conditions import Asked
from vq.metrics.crops import crops_of
from vq.metrics.diversity import diversity
from vq.metrics.drawn_layouts import assigned, diversity_of, fid_of, scene_fid_of
from vq.metrics.layout import answers
from vq.metrics.scenes import crop_features, moments_of, scene_fid
from vq.runners.sampler import NOTED, noted
from vq.teachers.classifier import classifier_features

HOW = ['--protocol', 'layouts-5x2', '--steps', '2', '--seed', '3']


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of 2 steps, and the images of its protocol."""
    home = tmp_path_factory.mktemp('protocol')
    with commands_here(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert train(['boxes', 'layout/digits.py', 'iters=2', 'batch_size=4', 'save_every=2', 'pictures_every=1000']) == 0
        assert sample(['boxes', *HOW, '--batch-size', '4']) == 0
        yield home


@pytest.fixture(scope='module')
def drawn(home: Path) -> DrawnLayouts:
    return DrawnLayouts(home / 'work_dirs/dry_run/boxes_sample')


def pictures(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)).astype(int) for path in sorted((folder / 'samples').iterdir())]


@pytest.mark.slow
def test_the_folder_holds_the_protocol(drawn: DrawnLayouts) -> None:
    record, dataset = drawn.record, DigitsCanvasDataset('validation', 32, smallest=8, largest=14)
    ids = [dataset.id_of(index) for index in range(5)]
    boxes = [dataset.original(index)['boxes'] for index in range(5)]
    assert drawn.ids == ids and record['ids_sha256'] == ids_digest(ids)
    assert (record['name'], record['layouts'], record['samples'], record['complete']) == ('layouts-5x2', 5, 2, True)
    assert record['drawn']['seed'] == 3 and record['drawn']['sampler']['steps'] == 2 and record['weights_hash']
    assert record['data'] == 'digits_canvas (validation)' and record['boxes'] == sum(map(len, boxes))
    for number in range(5):
        sample = dataset.original(number)
        layout = drawn.layout(number)
        assert torch.equal(layout.boxes[0], torch.from_numpy(sample['boxes']))
        assert layout.box_categories[0].tolist() == sample['box_categories'].tolist()
        assert np.array_equal(drawn.true(number).permute(1, 2, 0).numpy(), sample['image'])
    assert len(pictures(drawn.folder)) == 10


@pytest.mark.slow
def test_an_image_is_that_of_its_layout_and_number(drawn: DrawnLayouts) -> None:
    """In Python, with another batch size: image i is of layout i mod 5."""
    layouts = [drawn.layout(number) for number in range(5)]
    most = max(layout.boxes.shape[1] for layout in layouts)
    boxes = torch.zeros(5, most, 4)
    categories, there = torch.zeros(5, most).long(), torch.zeros(5, most).bool()
    for row, layout in enumerate(layouts):
        count = layout.boxes.shape[1]
        boxes[row, :count], categories[row, :count], there[row, :count] = layout.boxes[0], layout.box_categories[0], True
    asked = Condition(boxes=boxes, box_categories=categories, boxes_mask=there)
    found = vq.load('boxes').sample(layout=asked, count=10, seed=3, steps=2)
    for number in range(5):
        assert (drawn.drawn(number).int() - found[number::5].int()).abs().max() <= 1
    first, second = drawn.drawn(0)
    assert not torch.equal(first, second), 'two images of a layout have their own noise'


@pytest.mark.slow
def test_another_batch_size_and_a_restart_draw_the_same(home: Path, drawn: DrawnLayouts) -> None:
    before = pictures(drawn.folder)
    (drawn.folder / 'samples/000007.png').unlink()
    (drawn.folder / 'protocol.json').unlink()
    with pytest.raises(UserError, match='no record of a protocol'):
        DrawnLayouts(drawn.folder)
    assert sample(['boxes', *HOW, '--batch-size', '4']) == 0
    assert all(map(np.array_equal, before, pictures(drawn.folder))) and DrawnLayouts(drawn.folder).record == drawn.record
    other = ['other', 'layout/digits.py', *HOW, '--batch-size', '7', '--load-model-from', 'work_dirs/dry_run/boxes']
    assert sample(other) == 0
    for one, two in zip(before, pictures(home / 'work_dirs/dry_run/other_sample'), strict=True):
        assert np.abs(one - two).max() <= 1


@pytest.mark.slow
def test_a_trial_says_so_and_replaces_nothing_of_the_other(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample(['boxes', '--protocol', 'layouts-900x1', '--limit', '2', '--steps', '2']) == 2
    assert "'protocol.name' is 'layouts-5x2' there" in capsys.readouterr().err
    trial = ['trial', 'layout/digits.py', '--load-model-from', 'work_dirs/dry_run/boxes', '--steps', '1']
    assert sample([*trial, '--protocol', 'layouts-900x1', '--limit', '2']) == 0
    found = DrawnLayouts('work_dirs/dry_run/trial_sample')
    assert (found.layouts, found.samples, found.record['complete']) == (2, 1, False)
    with pytest.raises(UserError, match='diversity compares'):
        diversity_of(found, lambda one, other: (one - other).mean((1, 2, 3)))
    assert sample([*trial, '--num-samples', '1', '--overwrite']) == 0
    assert not Path('work_dirs/dry_run/trial_sample/protocol.json').exists()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--protocol', 'coco-stuff-2048x1'], 'is of COCOStuffDataset, and this is digits_canvas'),
        (['--protocol', 'layouts-999x1'], '999 or more layouts'),
        (['--protocol', 'layouts-2x1', '--num-samples', '3'], '--num-samples is given too'),
        (['--protocol', 'layouts-2x1', '--format', 'npz'], 'a protocol writes PNG files'),
        (['--protocol', 'layouts-2x1', '--limit', '0'], '--limit is 0'),
        (['--protocol', 'layout'], "there is no protocol 'layout'"),
        (['--limit', '3'], '--limit is of a protocol'),
        (['--protocol', 'layouts-2x1', '--override', '.trainer.model.conditioner.labels:1'], 'boxes of class'),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    home: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(['refused', 'layout/digits.py', '--load-model-from', 'work_dirs/dry_run/boxes', *words]) == 2
    assert message in capsys.readouterr().err


def test_a_model_of_something_else_is_refused() -> None:
    protocol, data = protocol_named('layouts-2x1'), DigitsCanvasDataset('validation')
    for kinds, message in ((('classes',), 'this model takes classes'), (('layout', 'text'), 'reads texts, and digits_canvas')):
        sampler: Any = SimpleNamespace(dataset=data, model=SimpleNamespace(kinds=kinds))
        with pytest.raises(UserError, match=message):
            Asking(protocol, sampler, None, Asked(), 10)
    worded: Any = SimpleNamespace(dataset=DigitsCanvasDataset('validation', text=True), model=sampler.model)
    Asking(protocol, worded, None, Asked(negative=['blurred']), 10)
    assert worded.samples == 2 and len(worded.asked.text) == 2 and worded.asked.negative == ['blurred']


def test_many_layouts_are_noted_by_their_digest() -> None:
    rows = [[number] for number in range(NOTED + 1)]
    assert noted(rows[:-1]) == rows[:-1] and noted(rows)['rows'] == NOTED + 1
    assert noted(rows) == noted([*rows]) != noted(rows[::-1])


@pytest.mark.slow
def test_figures_are_those_of_the_images_in_it(drawn: DrawnLayouts) -> None:
    def distance(one: Tensor, other: Tensor) -> Tensor:
        return (one - other).square().mean((1, 2, 3))

    numbers = range(5)
    assert diversity_of(drawn, distance) == diversity([drawn.drawn(number) for number in numbers], distance)
    network, true = Mean(), torch.stack([drawn.true(number) for number in numbers])
    made = torch.cat([drawn.drawn(number) for number in numbers])
    assert fid_of(drawn, network) == pytest.approx(scene_fid(network(true).pooled, network(made).pooled), rel=1e-6)

    def crops_in(images: Tensor) -> Tensor:  # image i is of layout i mod 5
        parts = [crop_features(network, image[None], drawn.layout(place % 5), 8) for place, image in enumerate(images)]
        return torch.cat(parts)

    rounds = torch.stack([drawn.drawn(number) for number in numbers], 1).flatten(0, 1)
    crops = [crops_in(true), crops_in(rounds)]
    assert scene_fid_of(drawn, network, 8) == pytest.approx(scene_fid(*crops), rel=1e-6)
    assert moments_of(crops[1]).count == 2 * moments_of(crops[0]).count


@pytest.fixture(scope='module')
def judges(home: Path) -> tuple[str, str]:
    """A classifier and a segmenter of a few steps."""
    assert train(['classifier', 'ic/digits.py', 'iters=4', 'save_every=4']) == 0
    assert train(['segmenter', 'layout/digits_segmenter.py', 'iters=4', 'save_every=4']) == 0
    return 'dry_run/classifier', 'dry_run/segmenter'


@pytest.mark.slow
def test_the_command_prints_and_writes_the_figures(
    drawn: DrawnLayouts, judges: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of functions that are tested in closed form; of true images beside them where there are any."""
    classifier, segmenter = judges
    words = [str(drawn.folder), '--classifier', classifier, '--segmenter', segmenter, '--lpips', 'none']
    assert layouts(words) == 0
    said = capsys.readouterr().out
    assert 'layouts-5x2: 5 layouts, 2 images of each' in said and 'scene_fid' in said
    record = json.loads((drawn.folder / 'layout_figures.json').read_text())
    network, found = classifier_features(classifier), record['figures']
    assert record['features']['crops'] == 32 and record['protocol']['ids_sha256'] == drawn.record['ids_sha256']
    assert found['scene_fid']['drawn'] == pytest.approx(scene_fid_of(drawn, network, 32, True), rel=1e-5)
    by_hand: dict[str, list[float]] = {'boxes': [], 'box_iou': []}
    regions = vq.load(segmenter).regions
    for number in range(5):
        layout = drawn.layout(number)
        crops = crops_of(drawn.true(number)[None], layout.boxes, layout.boxes_mask, 32, keep_shape=True)
        by_hand['boxes'] += (network(crops).logits.argmax(1) == layout.box_categories[0]).tolist()
        by_hand['box_iou'] += answers(regions(drawn.true(number)[None]), layout).tolist()
    for name, values in by_hand.items():
        assert len(values) == drawn.record['boxes'] and found[name]['true'] == pytest.approx(np.mean(values))
    assert 0 <= found['cas']['drawn'] <= 1 and found['cas']['true'] is None
    assert layouts([str(drawn.folder), '--segmenter', segmenter, '--features', 'none', '--lpips', 'none']) == 0
    alone = json.loads((drawn.folder / 'layout_figures.json').read_text())['figures']
    assert alone == {name: found[name] for name in ('found', 'box_iou')}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['nowhere'], 'no record of a protocol'),
        (['FOLDER', '--features', 'classifier'], 'none is given'),
        (['FOLDER', '--crop-size', '0'], '--crop-size is 0'),
        (['FOLDER', '--lpips', 'none'], 'pretrained'),
        (['FOLDER', '--classifier', 'CLASSIFIER', '--segmenter', 'CLASSIFIER', '--lpips', 'none'], 'Give that of a segmenter'),
    ],
)
def test_a_command_that_cannot_measure_says_why(
    words: list[str], message: str, drawn: DrawnLayouts, judges: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    named = {'FOLDER': str(drawn.folder), 'CLASSIFIER': judges[0]}
    assert layouts([named.get(word, word) for word in words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_classifier_of_other_classes_is_refused(drawn: DrawnLayouts) -> None:
    layout = drawn.layout(0)
    layout.box_categories = layout.box_categories + 5
    with pytest.raises(UserError, match='the classifier knows no classes'):
        assigned(Mean(), drawn.drawn(0)[:1], layout, 8)


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    dataset = DigitsCanvasDataset('validation')
    write_truth(tmp_path, dataset, [0, 1], {'layouts': 2, 'samples': 1, 'image_size': [64, 64]})
    found = DrawnLayouts(tmp_path)
    with pytest.raises(UserError, match='picture of the protocol cannot be read'):
        found.drawn(0)
    (tmp_path / 'ids.txt').write_text('digits_canvas/validation/000000\n')
    with pytest.raises(UserError, match='not the list of ids'):
        DrawnLayouts(tmp_path)
    record = json.loads((tmp_path / 'protocol.json').read_text())
    (tmp_path / 'protocol.json').write_text(json.dumps(record | {'format_version': 9}))
    with pytest.raises(UserError, match='of another form'):
        DrawnLayouts(tmp_path)
