"""Image metrics against torchmetrics, and their independence of batches."""

from __future__ import annotations

import math

import pytest
import torch

from vq.core import collectives
from vq.core.errors import UserError
from vq.core.random import key_of
from vq.core.records import Batch, Outputs, to_float, to_uint8
from vq.registries import VQMetricRegistry

NAMES = ['L1Metric', 'L2Metric', 'MSEMetric', 'PSNRMetric', 'SSIMMetric', 'UniformSSIMMetric']


def make_batch(image, ids):
    return Batch(image, ids, torch.tensor([key_of(name) for name in ids]))


def pictures(count, size=(13, 17), seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    noise = torch.linspace(0.01, 0.5, count)[:, None, None, None]
    return image, to_float(image) + torch.randn(image.shape, generator=generator) * noise


def measure(name, image, reconstruction, ids, cuts):
    """The metric of a pass; ``cuts`` are the rows of each batch."""
    metric = VQMetricRegistry.build(dict(type=name))
    for rows in cuts:
        metric.update(make_batch(image[rows], [ids[row] for row in rows]), Outputs(reconstruction=reconstruction[rows]))
    return metric.compute()


def uniform_similarity(x, y):
    """Window by window: means, variances and covariances (n - 1) of 49 pixels, without padding."""
    windows = [image.unfold(2, 7, 1).unfold(3, 7, 1).flatten(4) for image in (x, y)]  # (B, C, h, w, 49) each
    (mean_x, mean_y), (var_x, var_y) = [w.mean(-1) for w in windows], [w.var(-1) for w in windows]
    covariance = ((windows[0] - mean_x[..., None]) * (windows[1] - mean_y[..., None])).sum(-1) / 48
    similar = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
    return (similar / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))).mean().item()


def test_a_uniform_window_against_scikit_image():
    """structural_similarity(x, y, channel_axis=0, data_range=255) of scikit-image 0.26.0 gave these figures."""
    row, column = torch.meshgrid(torch.arange(19), torch.arange(23), indexing='ij')
    image = torch.stack([(row * (7 + c) + column * column * (3 + c)) % 256 for c in range(3)])[None].to(torch.uint8)
    changed = ((image.int() * 3 + (row * column) % 61) // 4).to(torch.uint8)
    found = measure('UniformSSIMMetric', image, to_float(changed), ['a'], [[0]])
    assert found['ssim_uniform'] == pytest.approx(0.9385411311295789, rel=1e-9)


@pytest.mark.parametrize('size', [(32, 32), (13, 17), (7, 40)])
def test_against_torchmetrics(size):
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    image, reconstruction = pictures(5, size)
    ids, cuts = [str(row) for row in range(5)], [[0, 1, 2], [3, 4]]
    x, y = image.double() / 255, to_uint8(reconstruction).double() / 255
    expected = {
        'l1': (x - y).abs().mean().item(),
        'mse': (x - y).square().mean().item(),
        'l2': (x - y).square().mean((1, 2, 3)).sqrt().mean().item(),
        'psnr': sum(peak_signal_noise_ratio(b, a, data_range=1.0).item() for a, b in zip(x, y, strict=True)) / 5,
        'ssim': structural_similarity_index_measure(y, x, data_range=1.0).item(),
        'ssim_uniform': uniform_similarity(x, y),
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
    assert measure('UniformSSIMMetric', image, perfect, 'ab', [[0, 1]])['ssim_uniform'] == pytest.approx(1.0, abs=1e-12)
    assert measure('L2Metric', image, perfect, 'ab', [[0, 1]]) == {'l2': 0.0}


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
    image, _ = pictures(1, (6, 20))
    measure('SSIMMetric', image, to_float(image), ['a'], [[0]])  # reflected pixels fill the window
    with pytest.raises(UserError, match='windows of 7 x 7'):
        measure('UniformSSIMMetric', image, to_float(image), ['a'], [[0]])
    with pytest.raises(UserError, match='needs reconstructions'):
        VQMetricRegistry.build(dict(type='PSNRMetric')).update(make_batch(image, ['a']), Outputs())


def measure_share(name, count, overlap):
    """On each rank: an uneven share of the images, some of them on both ranks."""
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
