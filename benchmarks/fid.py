"""FID: features, statistics and distance, each against pytorch-fid, torch-fidelity and torchmetrics.

    python benchmarks/fid.py            batches of 8; statistics of 50,000 rows; distance of 2,048 features
    python benchmarks/fid.py --quick    single images, fewer rows and features

All networks have the same random weights, written in the layout of pytorch-fid's file, and the same images of 256 pixels. The
peers use two kinds of preprocessing; ours is compared with each peer in the preprocessing of that peer. Equality is checked
first: features to 1e-5 of the largest, means and covariances to 1e-9, distances to 1e-6.

- forward: from uint8 images to 2,048 features, with the resize. bf16 is an option that every result records. Its error is
  reported, and its time in the full form. It is only faster on processors with bf16 instructions.
- statistics: from rows in batches of 32, like features, to mean and covariance. The roof is one float64 product X^T X.
- distance: of two means and covariances. pytorch-fid uses scipy's matrix square root, the others eigenvalues of a product.
- memory: the peak memory of statistics of 1,000 and of 50,000 rows; rows are generated batch by batch and not counted.

Ratios (``x ours``) are of CPU time, paired by round.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from _common import (
    Times,
    arguments,
    finish,
    in_turns,
    machine,
    must_be_equal,
    paired_ratio,
    peak_memory,
    rounded,
    table,
)

from vq.core import environment

environment.prepare()

import pytorch_fid.fid_score  # noqa: E402
import pytorch_fid.inception  # noqa: E402
import torch  # noqa: E402
import torch_fidelity.metric_fid  # noqa: E402
import torchmetrics.image.fid  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402

from vq.interfaces import Features  # noqa: E402
from vq.metrics.features.frechet import frechet_distance  # noqa: E402
from vq.metrics.features.statistics import Moments  # noqa: E402
from vq.metrics.features.store import FeatureStore  # noqa: E402
from vq.teachers.inception import Conv, FIDInception  # noqa: E402

CENTRES, TENSORFLOW = 'pytorch-fid', 'torch-fidelity'  # kinds of preprocessing: half-pixel centres, TensorFlow 1
ROWS = 32  # in a batch of features
TOLERANCE = {'features': 1e-5, 'statistics': 1e-9, 'distance': 1e-6}


class Given(nn.Module):
    """A network for torchmetrics that returns its input, which are features already."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, rows: Tensor) -> Tensor:
        return rows


def published_weights() -> dict[str, Tensor]:
    """Random weights with pytorch-fid's parameter names, scaled so that activations neither vanish nor explode."""
    draw = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    for name, module in FIDInception().named_modules():
        if isinstance(module, Conv):
            shape = module.conv.weight.shape
            weights[f'{name}.conv.weight'] = torch.randn(shape, generator=draw) * (2 / shape[1:].numel()) ** 0.5
            for leaf, centre in (('weight', 1.0), ('bias', 0.0), ('running_mean', 0.0)):
                weights[f'{name}.bn.{leaf}'] = centre + 0.1 * torch.randn(shape[0], generator=draw)
            weights[f'{name}.bn.running_var'] = 0.5 + torch.rand(shape[0], generator=draw)
            weights[f'{name}.bn.num_batches_tracked'] = torch.tensor(1)
    return weights | {'fc.weight': 0.02 * torch.randn(1008, 2048, generator=draw), 'fc.bias': torch.zeros(1008)}


def networks(images: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Name -> images (B, 3, H, W) uint8 to features (B, 2048)."""
    weights = published_weights()
    ours = {}
    for name, settings in (
        (f'ours, as {CENTRES}', FIDInception('pytorch_fid')),
        (f'ours, as {TENSORFLOW}', FIDInception('tensorflow')),
        ('ours, bf16', FIDInception('pytorch_fid', 'bf16')),
    ):
        settings.fill(weights, 'random weights')
        ours[name] = settings
    load = nn.Module.load_state_dict
    with (
        mock.patch.object(pytorch_fid.inception, 'load_state_dict_from_url', return_value=weights),
        # the package adds a head that is never used and not in the file
        mock.patch.object(nn.Module, 'load_state_dict', lambda module, state, **_: load(module, state, strict=False)),
    ):
        centres = pytorch_fid.inception.InceptionV3([3]).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / 'weights.pth')
        torch.save(weights, file)
        fidelity = FeatureExtractorInceptionV3('inception', ['2048'], feature_extractor_weights_path=file).eval()
        # torchmetrics antialiases by default, unlike the other two
        metrics = torchmetrics.image.fid.NoTrainInceptionV3('inception', ['2048'], file, antialias=False)

    def bound(network: FIDInception) -> Callable[[], Tensor]:
        return lambda: network(images).pooled

    return {
        **{name: bound(network) for name, network in ours.items()},
        'pytorch-fid': lambda: centres(images.float() / 255)[0].flatten(1),
        'torch-fidelity': lambda: fidelity(images)[0],
        'torchmetrics': lambda: metrics(images),
    }


def distant(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def agree(kind: str, what: str, found: Tensor, expected: Tensor) -> None:
    difference = distant(found, expected)
    must_be_equal(f'{kind} of ours and of {what}', difference <= TOLERANCE[kind], f'relative difference {difference:.1e}')


def forward(batch: int, repeats: int, quick: bool) -> dict[str, Any]:
    images = torch.randint(0, 256, (batch, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sides = networks(images)
    with torch.no_grad():
        found = {name: side() for name, side in sides.items()}
        for name in ('pytorch-fid', 'torch-fidelity', 'torchmetrics'):
            agree('features', name, found[f'ours, as {CENTRES if name == CENTRES else TENSORFLOW}'], found[name])
        exact = found[f'ours, as {CENTRES}']
        error = float((found['ours, bf16'] - exact).norm() / exact.norm())
        timed = {name: side for name, side in sides.items() if not (quick and name == 'ours, bf16')}
        times = in_turns(timed, repeats, warmup=0 if quick else 1)  # with --quick the check is the warm-up
    figures = report(f'forward, {batch} images of 256 pixels', f'ours, as {CENTRES}', times)
    ratio = paired_ratio(times[f'ours, as {CENTRES}'].cpu, times['pytorch-fid'].cpu)
    print(f'fp32 takes {ratio:.2f} of the time of pytorch-fid; features in bf16 are {error:.1e} off (of norms)')
    return {'sides': figures, 'of_pytorch_fid': rounded(ratio), 'bf16_error': rounded(error)}


def spread(count: int, dimension: int, seed: int) -> Tensor:
    """Non-negative fp32 rows (count, dimension) with a spectrum over four decades."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimension, dimension, generator=draw) * torch.logspace(0, -2, dimension)[:, None]
    rows = torch.empty(count, dimension)
    for part in torch.split(rows, 4096):
        torch.mm(torch.randn(len(part), dimension, generator=draw), mix, out=part)
    return rows.add_(0.3).clamp_min_(0)


def store(batches: Iterator[Tensor], dimension: int) -> Moments:
    """Statistics as computed by our metric."""
    kept, start = FeatureStore(('pooled',), ()), 0
    for rows in batches:
        kept.add(torch.arange(start, start + len(rows)), Features(rows))
        start += len(rows)
    return kept.finish().moments['pooled']


def in_memory(batches: Iterator[Tensor], count: int, dimension: int) -> Moments:
    """pytorch-fid and torch-fidelity: all rows in one array, then NumPy's covariance."""
    rows, start = torch.empty(count, dimension, dtype=torch.float64), 0
    for part in batches:
        rows[start : start + len(part)] = part
        start += len(part)
    found = torch_fidelity.metric_fid.fid_features_to_statistics(rows)
    return Moments(torch.from_numpy(found['mu']), torch.from_numpy(found['sigma']), count)


def streaming(batches: Iterator[Tensor], dimension: int) -> Moments:
    """torchmetrics: sums of rows and of their products."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        metric = torchmetrics.image.fid.FrechetInceptionDistance(feature=Given(dimension))
    for rows in batches:
        metric.update(rows, real=True)
    count = int(metric.real_features_num_samples)
    mean = metric.real_features_sum / count
    return Moments(mean, (metric.real_features_cov_sum - count * torch.outer(mean, mean)) / (count - 1), count)


def statistics(count: int, dimension: int, repeats: int, quick: bool) -> dict[str, Any]:
    rows = spread(count, dimension, 1)
    wide = rows.double()

    def batches() -> Iterator[Tensor]:
        yield from torch.split(rows, ROWS)

    sides: dict[str, Callable[[], Any]] = {
        'ours': lambda: store(batches(), dimension),
        'pytorch-fid, torch-fidelity': lambda: in_memory(batches(), count, dimension),
        'torchmetrics': lambda: streaming(batches(), dimension),
        'roof: float64 product': lambda: wide.T @ wide,
    }
    ours = sides['ours']()
    for name in ('pytorch-fid, torch-fidelity', 'torchmetrics'):
        peer = sides[name]()
        agree('statistics', f'{name}: mean', ours.mean, peer.mean)
        agree('statistics', f'{name}: covariance', ours.covariance, peer.covariance)
    times = in_turns(sides, repeats, warmup=0 if quick else 1)  # with --quick the check is the warm-up
    figures = report(f'statistics, {count:,} x {dimension:,}', 'ours', times)
    ratio = paired_ratio(times['ours'].cpu, times['roof: float64 product'].cpu)
    print(f'ours take {ratio:.2f} of the time of the float64 product')
    return {'rows': count, 'dimension': dimension, 'sides': figures, 'of_roof': rounded(ratio)}


def distance(dimension: int, repeats: int) -> dict[str, Any]:
    a, b = (store(iter(torch.split(spread(3 * dimension, dimension, seed), ROWS)), dimension) for seed in (1, 2))
    arrays = (a.mean.numpy(), a.covariance.numpy(), b.mean.numpy(), b.covariance.numpy())
    stated = [{'mu': moments.mean.numpy(), 'sigma': moments.covariance.numpy()} for moments in (a, b)]

    def root() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # the package uses a deprecated interface of scipy
            return float(pytorch_fid.fid_score.calculate_frechet_distance(*arrays))

    sides: dict[str, Callable[[], float]] = {
        'ours': lambda: frechet_distance(a, b).value,
        'pytorch-fid: scipy.linalg.sqrtm': root,
        'torch-fidelity': lambda: torch_fidelity.metric_fid.fid_statistics_to_metric(*stated, False)[
            torch_fidelity.metric_fid.KEY_METRIC_FID
        ],
        'torchmetrics': lambda: float(torchmetrics.image.fid._compute_fid(a.mean, a.covariance, b.mean, b.covariance)),
    }
    value = sides['ours']()
    for name in list(sides)[1:]:
        agree('distance', name, torch.tensor(value, dtype=torch.float64), torch.tensor(sides[name](), dtype=torch.float64))
    times = in_turns(sides, repeats, warmup=0)
    figures = report(f'distance, {dimension:,} features', 'ours', times)
    return {'dimension': dimension, 'value': value, 'sides': figures}


def memory(counts: tuple[int, int], dimension: int) -> dict[str, Any]:
    def batches(count: int) -> Iterator[Tensor]:
        draw = torch.Generator().manual_seed(0)
        for start in range(0, count, ROWS):
            yield torch.rand(min(ROWS, count - start), dimension, generator=draw)

    sides: dict[str, Callable[[int], object]] = {
        'ours': lambda count: store(batches(count), dimension),
        'pytorch-fid, torch-fidelity': lambda count: in_memory(batches(count), count, dimension),
        'torchmetrics': lambda count: streaming(batches(count), dimension),
    }
    found = {name: [peak_memory(lambda s=side, n=count: s(n)) for count in counts] for name, side in sides.items()}  # type: ignore[misc]
    columns = ('', *(f'{count:,} rows' for count in counts))
    table(f'peak memory of statistics, {dimension:,} features, MB', columns, [(name, *peaks) for name, peaks in found.items()])
    shown = {name: [None if peak is None else round(peak, 1) for peak in peaks] for name, peaks in found.items()}
    return {'rows': list(counts), 'mb': shown}


def report(title: str, ours: str, times: Mapping[str, Times]) -> dict[str, Any]:
    rows: list[tuple[Any, ...]] = []
    found: dict[str, Any] = {}
    for name, time in times.items():
        ratio = paired_ratio(time.cpu, times[ours].cpu)
        rows.append((name, 1e3 * time.median, 1e3 * time.cpu_median, ratio))
        found[name] = {**time.figures(), 'times_ours': rounded(ratio)}
    table(title, ('', 'ms', 'cpu ms', 'x ours'), rows)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--only', choices=('forward', 'statistics', 'distance', 'memory'), help='one part alone')
    parser.add_argument('--rows', type=int, help='rows of the statistics (50,000; quick: 4,096); torchmetrics takes long')
    options = parser.parse_args()
    where, quick = machine(), options.quick
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        'forward': lambda: forward(1 if quick else 8, 7, quick),
        'statistics': lambda: statistics(options.rows or (4_096 if quick else 50_000), 1_024 if quick else 2_048, 7, quick),
        'distance': lambda: distance(384 if quick else 2_048, 7),
        'memory': lambda: memory((1_000, 4_000 if quick else 50_000), 512 if quick else 2_048),
    }
    figures = {name: part() for name, part in parts.items() if options.only in (None, name)}
    finish('fid', quick, where, {'threads': torch.get_num_threads(), **figures})


if __name__ == '__main__':
    main()
