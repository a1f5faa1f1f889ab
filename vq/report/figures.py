"""Measures images: the metrics of a validator on given reconstructions, and figures in the features of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.core.parameters import parameters_of
from vq.core.random import key_of
from vq.core.records import Batch, Outputs, to_float
from vq.interfaces import FeatureNetwork
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.statistics import FeatureStatistics, Moments
from vq.metrics.likeness import nearest_by_tokens, within_class_distance
from vq.registries import VQMetricRegistry
from vq.report.facts import Pixels
from vq.report.images import as_tensor

BATCH = 100  # batch size of the classifier
USUAL = {'l1': 'L1Metric', 'mse': 'MSEMetric', 'psnr': 'PSNRMetric', 'ssim': 'SSIMMetric'}
OF_CODES = {'codebook': 'CodebookMetric'}

Sizes = int | Sequence[int]  # of a codebook, or of several


def measure(
    metrics: Mapping[str, Any],
    ids: Sequence[str],
    images: Pixels,
    made: Pixels,
    tokens: NDArray[np.int64] | None,
    sizes: Sizes,
) -> dict[str, Any]:
    """The figures of a validator's metrics on 8-bit reconstructions, with a codebook of ``sizes``."""
    batch = Batch(as_tensor(images), list(ids), torch.tensor([key_of(sample) for sample in ids]))
    outputs = Outputs(to_float(as_tensor(made)), None if tokens is None else torch.from_numpy(tokens))
    found: dict[str, Any] = {'samples': len(ids)}
    for name, described in metrics.items():
        takes = parameters_of(VQMetricRegistry.parse(described['type'])[1])
        given = {'codebook_size': sizes} if 'codebook_size' in takes else {}  # a validator binds it to its model
        metric = VQMetricRegistry.build(described, f'validator.metrics.{name}', **given)
        metric.update(batch, outputs)
        found.update(metric.compute())
    return found


def metrics_of(config: Mapping[str, Any], continuous: bool) -> tuple[dict[str, Any], list[str]]:
    """The metrics of a config's validator that need no network of their own, with the usual ones; and the others' names."""
    described = dict((config.get('validator') or {}).get('metrics') or {})
    usual = {name: {'type': kind} for name, kind in {**USUAL, **({} if continuous else OF_CODES)}.items()}
    chosen, others = {}, []
    for name, metric in described.items():
        if not isinstance(metric, Mapping) or 'type' not in metric:
            continue
        if 'network' in metric or 'LPIPS' in str(metric['type']):
            others.append(name)
        elif not continuous or 'codebook_size' not in parameters_of(VQMetricRegistry.parse(metric['type'])[1]):
            chosen[name] = metric
    there = {str(metric['type']).rpartition('.')[2] for metric in chosen.values()}
    return chosen | {name: metric for name, metric in usual.items() if metric['type'] not in there}, others


class Seen:
    """Features and predictions of a classifier for images (N, 3, H, W) uint8."""

    def __init__(self, network: FeatureNetwork, images: Tensor) -> None:
        statistics, named = FeatureStatistics(network.dimension), []
        for part in torch.split(images, BATCH):
            features = network(part)
            statistics.update(features.pooled)
            assert features.logits is not None
            named.append(features.logits.argmax(1))
        self.moments: Moments = statistics.compute()
        self.named = torch.cat(named)  # (N,)

    def distance(self, other: Seen) -> float:
        return frechet_distance(self.moments, other.moments).value

    def agreement(self, category: Tensor) -> float:
        """The share of images whose predicted class is ``category`` (N,)."""
        return float((self.named == category).double().mean())

    def compare(self, originals: Seen, category: Tensor | None) -> dict[str, Any]:
        """For reconstructions: the distance to their originals, and the accuracy of the classifier on them."""
        recognised = {} if category is None else {'recognised': self.agreement(category)}
        return {'fd': self.distance(originals), **recognised}


class Reference:
    """Training images, to compare other images with. ``network``: of a classifier, if there is one."""

    def __init__(self, network: FeatureNetwork | None, images: Tensor, category: Tensor | None, tokens: Tensor) -> None:
        self.seen, self.tokens = None if network is None else Seen(network, images), tokens
        self.within = None if category is None else within_class_distance(images, category)

    def compare(self, seen: Seen | None, images: Tensor, category: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        """Figures of images (N, 3, H, W) with their requested classes (N,) and tokens (N, *token_shape)."""
        found: dict[str, Any] = {}
        if seen is not None and category is not None:
            found['agreement'] = seen.agreement(category)
        if self.within and category is not None and np.isfinite(within := within_class_distance(images, category)):
            found['within'] = within / self.within
        if seen is not None and self.seen is not None:
            found['fd_train'] = seen.distance(self.seen)
        if len(self.tokens):
            shares, _ = nearest_by_tokens(tokens, self.tokens)
            found |= {'share_mean': float(shares.mean()), 'share_most': float(shares.max())}
        return found | {'distinct': len(torch.unique(tokens.flatten(1), dim=0)), 'samples': len(images)}


def count_codes(tokens: NDArray[np.int64], sizes: Sizes) -> dict[str, list[int]]:
    """Uses of each code; with several codebooks, of each of them. Keys: '' or 'codebook k'."""
    if isinstance(sizes, int):
        return {'': np.bincount(tokens.ravel(), minlength=sizes).tolist()}
    return {
        f'codebook {number + 1}': np.bincount(tokens[..., number].ravel(), minlength=size).tolist()
        for number, size in enumerate(sizes)
    }
