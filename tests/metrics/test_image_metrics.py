"""Image metrics against torchmetrics, and their independence of how a pass was cut."""

from __future__ import annotations

import math

import pytest
import torch

from vq.core import collectives
from vq.core.errors import UserError
from vq.core.random import key_of
from vq.core.records import Batch, Outputs, to_float, to_uint8
from vq.registries import VQMetricRegistry

NAMES = ['L1Metric', 'MSEMetric', 'PSNRMetric', 'SSIMMetric']


def make_batch(image, ids):
    return Batch(image, ids, torch.tensor([key_of(name) for name in ids]))


def pictures(count, size=(13, 17), seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    noise = torch.linspace(0.01, 0.5, count)[:, None, None, None]
    return image, to_float(image) + torch.randn(image.shape, generator=generator) * noise


def measure(name, image, reconstruction, ids, cuts):
    """The metric of a pass cut into batches: ``cuts`` are lists of rows."""
    metric = VQMetricRegistry.build(dict(type=name))
    for rows in cuts:
        metric.update(make_batch(image[rows], [ids[row] for row in rows]), Outputs(reconstruction=reconstruction[rows]))
    return metric.compute()


@pytest.mark.parametrize('size', [(32, 32), (13, 17), (6, 40)])
def test_against_torchmetrics(size):
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    image, reconstruction = pictures(5, size)
    ids, cuts = [str(row) for row in range(5)], [[0, 1, 2], [3, 4]]
    x, y = image.double() / 255, to_uint8(reconstruction).double() / 255
    expected = {
        'l1': (x - y).abs().mean().item(),
        'mse': (x - y).square().mean().item(),
        'psnr': sum(peak_signal_noise_ratio(b, a, data_range=1.0).item() for a, b in zip(x, y, strict=True)) / 5,
        'ssim': structural_similarity_index_measure(y, x, data_range=1.0).item(),
    }
    found = {}
    for name in NAMES:
        found |= measure(name, image, reconstruction, ids, cuts)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_the_cut_does_not_matter_to_the_last_bit(name):
    image, reconstruction = pictures(11)
    ids = [f'image/{row}' for row in range(11)]
    whole = measure(name, image, reconstruction, ids, [list(range(11))])
    for cuts in ([[row] for row in range(11)], [[7, 3, 10], [0, 1, 2, 4, 5, 6, 8, 9]], [list(range(11)), [4, 4, 2], [10]]):
        assert measure(name, image, reconstruction, ids, cuts) == whole


def test_memory_format_does_not_matter():
    image, reconstruction = pictures(3)
    for name in NAMES:
        rows = [[0, 1, 2]]
        last = measure(
            name,
            image.contiguous(memory_format=torch.channels_last),
            reconstruction.contiguous(memory_format=torch.channels_last),
            'abc',
            rows,
        )
        assert last == measure(name, image, reconstruction, 'abc', rows)


def test_reconstructions_are_rounded_to_8_bits():
    image = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    close = to_float(image) + 0.4 / 127.5
    assert measure('L1Metric', image, close, ['a'], [[0]]) == {'l1': 0.0}
    assert measure('L1Metric', image, close + 0.2 / 127.5, ['a'], [[0]])['l1'] == pytest.approx(1 / 255)
    assert measure('L1Metric', image, close + 9, ['a'], [[0]])['l1'] == pytest.approx(155 / 255)


def test_perfect_reconstructions():
    image, _ = pictures(2)
    perfect = to_float(image)
    assert measure('PSNRMetric', image, perfect, 'ab', [[0, 1]]) == {'psnr': 100.0}
    assert measure('SSIMMetric', image, perfect, 'ab', [[0, 1]])['ssim'] == pytest.approx(1.0, abs=1e-12)


def test_no_images_and_reset():
    metric = VQMetricRegistry.build(dict(type='MSEMetric'))
    image, reconstruction = pictures(2)
    metric.update(make_batch(image, ['a', 'b']), Outputs(reconstruction=reconstruction))
    metric.reset()
    assert math.isnan(metric.compute()['mse'])


def test_what_cannot_be_measured():
    image, _ = pictures(1, (5, 20))
    with pytest.raises(UserError, match='window'):
        measure('SSIMMetric', image, to_float(image), ['a'], [[0]])
    with pytest.raises(UserError, match='needs reconstructions'):
        VQMetricRegistry.build(dict(type='PSNRMetric')).update(make_batch(image, ['a']), Outputs())


def measure_share(name, count, overlap):
    """On each rank: its uneven share of the images, some of them seen by both."""
    image, reconstruction = pictures(count)
    rank = collectives.rank()
    rows = list(range(count - 2)) if rank == 0 else list(range(count - 2 - overlap, count))
    return measure(name, image, reconstruction, [str(row) for row in range(count)], [rows[:3], rows[3:]])


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('overlap', [0, 2])
def test_two_ranks_with_uneven_shares(gloo_pool, name, overlap):
    image, reconstruction = pictures(9)
    alone = measure(name, image, reconstruction, [str(row) for row in range(9)], [list(range(9))])
    assert gloo_pool.run(measure_share, name, 9, overlap) == [alone, alone]
