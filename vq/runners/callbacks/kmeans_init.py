"""Initialises codebooks with k-means of the features."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError, UserError
from vq.core.random import derive_seed
from vq.interfaces import Callback, Quantizer
from vq.quantizers.updates.kmeans import kmeans, mean_lengths
from vq.quantizers.vector import VectorQuantizer
from vq.registries import VQCallbackRegistry
from vq.runners.codebooks import copy_to_averages, features_of, find_quantizer, forget_moments, inputs_of, vector_quantizers
from vq.runners.evaluating import evaluating
from vq.runners.protocol import TrainerLike

logger = logging.getLogger('vq')


@VQCallbackRegistry.register_()
class KMeansInitCallback(Callback[TrainerLike]):
    """Before the first step, codes become the k-means centres of the encoder's features of the next batches.

    It runs once per run: not again after a resume, and, unless ``after_loading``, not if ``--load-model-from`` loaded
    weights. The batches are the next batches of training, encoded in evaluation mode. Training then sees the same batches in
    the same order, with the same random numbers. Quantizers that normalise codes or use the cosine distance get spherical
    k-means. Codebooks of residual and grouped quantizers are fitted one after the other, each on the inputs that the
    codebooks before it leave. A codebook that is used several times is fitted to its first use, then to its first two uses,
    and so on.

    batches     number of batches of each rank; all their features are in memory at once
    iterations  of Lloyd's algorithm
    delay       steps to train before k-means, because the features of an untrained encoder soon move away. A run resumed at
                or before ``delay`` still does the k-means
    seed        of the draw of the first centres, combined with the seed of the run
    """

    phase = 'kmeans'

    def __init__(
        self, batches: int = 8, iterations: int = 10, delay: int = 0, seed: int = 0, after_loading: bool = False
    ) -> None:
        if batches < 1 or iterations < 0 or delay < 0:
            raise ConfigError(
                f'k-means on {batches} batches, {iterations} iterations, after {delay} steps',
                'Give 1 or more batches, and no negative numbers.',
            )
        self.batches, self.iterations, self.delay, self.seed = batches, iterations, delay, seed
        self.after_loading = after_loading
        self.idle = False  # True if the run began with loaded weights

    def bind(self, runner: TrainerLike) -> None:
        super().bind(runner)
        self.parts = vector_quantizers(runner.model, 'KMeansInitCallback')
        _, self.top = find_quantizer(runner.model, 'KMeansInitCallback')

    def before_run(self) -> None:
        if 'loaded' in self.runner.context.meta and not self.after_loading:
            self.idle = True
            logger.info('weights were loaded: their codebook is kept, and k-means is skipped')

    def before_step(self) -> None:
        runner = self.runner
        if self.idle or runner.step != self.delay or (runner.step == 0 and runner.resumed is not None):
            return
        runner.guard.check()
        with evaluating(runner.model):
            with runner.open_loader() as loader:
                batches = (runner.strategy.to_device(batch) for batch in itertools.islice(loader, self.batches))
                features = features_of(runner, self.top, batches)
            for name, part in self.parts.items():
                self._start(name, part, self.top, features)
        copy_to_averages(runner, list(self.parts))

    def _start(self, name: str, part: VectorQuantizer, top: Quantizer, features: list[Tensor]) -> None:
        uses = len(inputs_of(part, top, features[:1])[0])
        for use in range(1, uses + 1):
            rows = [call for calls in inputs_of(part, top, features, use) for call in calls]
            if use == uses or sum(map(len, rows)) * collectives.size() >= part.codebook_size:
                self._fit(name, part, rows)

    def _fit(self, name: str, part: VectorQuantizer, rows: list[Tensor]) -> None:
        seen = sum(map(len, rows)) * collectives.size()
        codes = part.codebook_size
        if seen < codes:
            needed = -(-codes * self.batches // max(seen, 1))
            raise UserError(
                f'k-means for the {codes} codes of {name} saw {seen} features in {self.batches} batches',
                f'Give KMeansInitCallback batches={needed} or more; {4 * needed} would make better centres.',
            )
        seed = derive_seed('k-means', self.seed, self.runner.context.seed, name)
        clusters = kmeans(rows, codes, part.metric, self.iterations, seed)
        centres = clusters.centres
        if part.metric == 'cosine' and not part.normalize:
            centres = centres * mean_lengths(rows, centres)
        with torch.no_grad():
            part.codebook.weight.copy_(centres)
        if part.codebook_update is not None:
            part.codebook_update.reset(part.codebook.weight.detach())
        forget_moments(self.runner, part.codebook.weight, torch.ones(codes, dtype=torch.bool, device=centres.device))
        used = int((clusters.counts > 0).sum())
        before, after = clusters.inertia[0], clusters.inertia[-1]
        if collectives.is_main():
            logger.info(
                'k-means for %s: %d features, mean squared distance %.6g, then %.6g; %d of %d codes used',
                name,
                seen,
                before,
                after,
                used,
                codes,
            )
        values = {'quantizer': name, 'features': seen, 'before': before, 'after': after, 'used': used}
        self.runner.journal.write(self.runner.step + 1, 'kmeans', values)  # belongs to the step that begins

    def state_dict(self) -> dict[str, Any]:
        return {'idle': self.idle}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.idle = bool(state['idle'])
