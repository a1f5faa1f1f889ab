"""What reports compute, against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vq.core.errors import UserError
from vq.data.datasets.base import ImageDataset
from vq.data.decode import BadImage
from vq.report import codebook
from vq.report.codebook import decode_alone, fit_baseline, mean_patches, most_used, patch_for
from vq.report.figures import count_codes, metrics_of
from vq.report.images import Images, read_images, spaced
from vq.report.origin import in_words, seconds_of_training
from vq.report.training import names_of_losses, number


def images(count: int, size: int = 8, classes: list[int] | None = None) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    category = None if classes is None else np.array(classes)
    return Images('validation', count, [f'i/{number}' for number in range(count)], pixels, category, ('a', 'b'))


def test_mean_patches_are_those_of_brute_force():
    rng = np.random.default_rng(1)
    pixels, tokens = rng.integers(0, 256, (7, 6, 6, 3), dtype=np.uint8), rng.integers(0, 5, (7, 3, 3))
    tokens[tokens == 2] = 1
    found = mean_patches(pixels, tokens, 5)
    for code in range(5):
        own = [pixels[n, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] for n, y, x in np.argwhere(tokens == code)]
        expected = np.rint(np.mean(own, 0, dtype=np.float64)) if own else np.zeros((2, 2, 3))
        np.testing.assert_array_equal(found[code], expected)


def test_a_code_alone_is_the_middle_of_its_map():
    """A decoder whose cells show their code, brighter from cell to cell."""

    def detokenize(tokens):
        level = tokens.float() * 10 + torch.arange(12).view(3, 4)
        return level.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand(-1, 3, -1, -1).to(torch.uint8)

    found = decode_alone(detokenize, [0, 7, 3], (3, 4), 2)
    assert found.shape == (3, 2, 2, 3)
    assert [set(cell.ravel().tolist()) for cell in found] == [{6}, {76}, {36}], 'cell (1, 2) is the seventh'


@pytest.mark.parametrize(
    ('size', 'tokens', 'patch'), [(32, 16, 8), (64, 256, 4), (32, 30, None), (30, 16, None), (8, 1, 8), (8, 0, None)]
)
def test_patches_with_as_many_tokens(size, tokens, patch):
    assert patch_for(size, tokens) == patch


def test_a_baseline_that_makes_no_sense_is_refused_with_the_reason(monkeypatch):
    pixels = images(10).pixels  # 40 patches of 4 x 4
    assert fit_baseline(pixels, 30, 4, 0)[1] == '40 patches of training images are few for 30 codes'
    assert fit_baseline(pixels, 4, 3, 0)[1] == '3 tokens do not cut images of 8 x 8 into squares'
    kmeans, why = fit_baseline(pixels, 8, 4, 0)
    assert why == '' and kmeans.patches.shape == (8, 4, 4, 3)
    monkeypatch.setattr(codebook, 'WORK', 20 * 2 * 8 * 48 * 15)  # 20 steps over 15 patches
    assert 'would take hours' in fit_baseline(pixels, 8, 4, 0)[1]
    monkeypatch.setattr(codebook, 'WORK', 20 * 2 * 8 * 48 * 20)
    kmeans, why = fit_baseline(pixels, 8, 4, 0)
    np.testing.assert_array_equal(kmeans.centres, codebook.baseline.fit(pixels[:5], 8, 4, 0, iterations=20).centres)


def test_shown_images_are_the_first_of_each_class_or_evenly_spaced():
    some = images(9, classes=[1, 0, 0, 1, 1, 0, 0, 1, 1])
    assert some.choose(4) == [1, 2, 0, 3] and some.choose(0) == [1, 2, 5, 0, 3, 4] and some.choose(1) == [0]
    assert images(9).choose(3) == [0, 3, 6] and images(2).choose(3) == [0, 1]
    assert some.name_of(0) == 'b' and images(2).name_of(1) == ''
    assert spaced(5, 9) == [0, 1, 2, 3, 4] and spaced(10, 4) == [0, 2, 5, 7] and spaced(0, 3) == []


def test_uses_of_codes():
    tokens = np.array([[[0, 2], [0, 1]], [[1, 1], [1, 2]]])  # (2, 2, 2)
    assert count_codes(tokens, 3) == {'': [2, 4, 2]}
    assert count_codes(tokens, [2, 4]) == {'codebook 1': [2, 2], 'codebook 2': [0, 2, 2, 0]}
    assert most_used([3, 1, 9, 3], 3) == [2, 0, 3] and most_used([3, 1], 3) == []


def test_metrics_without_networks_and_the_usual_ones():
    metrics = {'psnr': {'type': 'PSNRMetric'}, 'fid': {'type': 'FeatureMetric', 'network': {}}, 'gone': None}
    chosen, others = metrics_of({'validator': {'metrics': {**metrics, 'codes': {'type': 'CodebookMetric'}}}}, True)
    assert others == ['fid'] and {metric['type'] for metric in chosen.values()} == {
        'PSNRMetric', 'L1Metric', 'MSEMetric', 'SSIMMetric'
    }  # fmt: skip
    assert 'CodebookMetric' in {metric['type'] for metric in metrics_of({}, False)[0].values()}


def test_the_time_of_a_training_is_that_of_its_steps():
    """10 steps of 0.5 s, 20 of 0.25 s; a resume wrote step 20 again; a line without times."""
    lines = [{'step': 10, 'timing': {'seconds_per_step': 0.5}}, {'step': 30, 'timing': {'seconds_per_step': 0.25}}]
    assert seconds_of_training(lines) == 10
    assert seconds_of_training([*lines, {'step': 20, 'timing': {'seconds_per_step': 9}}, {'step': 40}]) == 10
    assert seconds_of_training([{'step': 10}]) is None
    assert (in_words(100), in_words(600), in_words(36_000)) == ('100 s', '10 min', '10.0 h')


def test_losses_of_a_journal():
    lines = [{'step': 1, 'epoch': 0.1, 'samples': 2, 'total': 1.0}, {'step': 2, 'd/total': 1.0, 'd/hinge': 0.5, 'note': 'x'}]
    assert names_of_losses(lines) == ['d/hinge'] and names_of_losses(lines[:1]) == ['total']
    assert number('inf') == float('inf') and np.isnan(number('x')) and np.isnan(number(None))


def test_damaged_images_and_other_sizes_are_passed_over_and_counted():
    class Folder(ImageDataset):
        def __len__(self):
            return 5

        def id_of(self, index):
            return str(index)

        def read(self, index):
            if index == 1:
                raise BadImage('1.png', 'cut off')
            return np.full((4, 6 if index == 3 else 4, 3), index, np.uint8)

    found = read_images(Folder('folder', 'train'), None, (4, 4))
    assert found.ids == ['0', '2', '4'] and found.passed_over == 2 and found.total == 5 and found.category is None
    assert read_images(Folder('folder', 'train'), 3).ids == ['0'], 'of 0, 1 and 3'
    with pytest.raises(UserError, match='no image of folder'):
        read_images(Folder('folder', 'train'), None, (8, 8))
