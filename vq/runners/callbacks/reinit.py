"""Reinitialises codes that were not used, every so many epochs or steps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.random import derive_seed
from vq.core.records import Batch, Outputs
from vq.interfaces import Callback
from vq.metrics.codebook import number_codes
from vq.quantizers.updates.kmeans import draw_features
from vq.quantizers.updates.reinitialize import from_codes, from_features
from vq.quantizers.vector import VectorQuantizer
from vq.registries import VQCallbackRegistry
from vq.runners.codebooks import (
    codebook_owners,
    copy_to_averages,
    features_of,
    find_quantizer,
    forget_moments,
    inputs_of,
    vector_quantizers,
)
from vq.runners.evaluating import evaluating
from vq.runners.protocol import TrainerLike

logger = logging.getLogger('vq')


@VQCallbackRegistry.register_()
class ReinitCallback(Callback[TrainerLike]):
    """Every ``epochs`` or ``iterations``, codes used less than ``least`` times since the previous time get new values.

    source='codes'     e_k <- e_j + noise |e_j| / sqrt(C) g: a copy of a used code, drawn with probability n_j / sum n (the
                       VQ-VAE/GAN study's ``reinit_every_n_epochs``), plus noise g ~ N(0, 1). Exact copies would never
                       separate, because the search resolves ties to the first code
    source='features'  e_k <- a random feature of the step's last batch, encoded with the weights after the step

    Counts are summed over all ranks and stored in the checkpoint. EMA counts, sums and usage of reinitialised codes restart
    at the mean of all codes, optimizer moments at zero; moving averages of the weights get the new codes. Counting stays on
    the device and needs no host sync. The last step of a run reinitialises nothing.
    """

    phase = 'reinit'

    def __init__(
        self,
        epochs: float | None = None,
        iterations: int | None = None,
        source: Literal['codes', 'features'] = 'codes',
        noise: float = 0.01,
        least: int = 1,
        seed: int = 0,
    ) -> None:
        if (epochs is None) == (iterations is None) or not (epochs or iterations or 0) > 0:
            raise ConfigError(
                f're-initialisation every {epochs} epochs and {iterations} iterations', 'Give one of the two, above 0.'
            )
        if source not in ('codes', 'features'):
            raise ConfigError(f"source is '{source}'", "It is 'codes' or 'features'.")
        if least < 1 or noise < 0:
            raise ConfigError(f'least is {least} and noise {noise}', 'least is 1 or more, noise is not negative.')
        self.epochs, self.iterations, self.source = epochs, iterations, source
        self.noise, self.least, self.seed = noise, least, seed
        self._batch: Batch | None = None

    def bind(self, runner: TrainerLike) -> None:
        super().bind(runner)
        self.parts = vector_quantizers(runner.model, 'ReinitCallback')
        _, self.top = find_quantizer(runner.model, 'ReinitCallback')
        self.owners = codebook_owners(self.top)
        self.sizes = [size for size, _ in self.owners]
        self.counts = torch.zeros(sum(self.sizes), dtype=torch.int64, device=runner.strategy.device)

    def _due(self, step: int) -> bool:
        """Whether codes are reinitialised after this step. It depends on the step alone, so a resumed run does the same."""
        if step >= self.runner.iters:
            return False
        if self.iterations is not None:
            return step % self.iterations == 0
        period = (self.epochs or 0) * len(self.runner.dataset)
        after = self.runner.samples_seen + self.runner.batch_size * (step - self.runner.step)
        return bool(after // period > (after - self.runner.batch_size) // period)

    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        if outputs.tokens is not None:
            tokens = number_codes(outputs.tokens, self.sizes).flatten()
            self.counts.scatter_add_(0, tokens, torch.ones_like(tokens))
        if self.source == 'features' and self._due(self.runner.step + 1):
            self._batch = batch

    def after_step(self) -> None:
        if not self._due(self.runner.step):
            return
        self.runner.guard.check()  # no codes are made after a loss or gradient that is not finite
        counts = collectives.all_reduce(self.counts).clone()
        self.counts.zero_()
        shares = torch.split(counts, self.sizes)
        if self._batch is None:
            self._reinitialize(shares, [])
        else:
            with evaluating(self.runner.model):
                self._reinitialize(shares, features_of(self.runner, self.top, [self._batch]))
            self._batch = None

    @torch.no_grad()
    def _reinitialize(self, shares: tuple[Tensor, ...], features: list[Tensor]) -> None:
        for name, part in self.parts.items():
            mine = [share for share, (_, owner) in zip(shares, self.owners, strict=True) if owner is part]
            counts = torch.stack(mine).sum(0)
            unused = counts < self.least
            codebook = part.codebook.weight
            if self.source == 'codes':
                seed = ('re-initialisation', self.seed, self.runner.context.seed, self.runner.step, name)
                codes, changed = from_codes(codebook, counts, unused, self.noise, *seed)
            else:
                codes, changed = self._from_features(name, part, unused, features)
            codebook.copy_(codes)
            if part.codebook_update is not None:
                part.codebook_update.restarted(codebook, changed)
            forget_moments(self.runner, codebook, changed)
            copy_to_averages(self.runner, [name], changed)
            self._tell(name, int(changed.sum()), len(codebook))

    def _from_features(
        self, name: str, part: VectorQuantizer, unused: Tensor, features: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        rows = [call for calls in inputs_of(part, self.top, features) for call in calls]
        seed = derive_seed('re-initialisation', self.seed, self.runner.context.seed, name)
        drawn, there = draw_features(rows, part.codebook_size, seed, self.runner.step)
        if part.normalize:
            drawn = F.normalize(drawn, dim=1)
        return from_features(part.codebook.weight, drawn, there, unused)

    def _tell(self, name: str, changed: int, codes: int) -> None:
        if collectives.is_main():
            logger.info('step %d: reinitialised %d unused codes of the %d of %s', self.runner.step, changed, codes, name)
        self.runner.journal.write(self.runner.step, 'reinit', {'quantizer': name, 'codes': changed})

    def state_dict(self) -> dict[str, Any]:
        """The counts, summed over ranks, so that a resume on another number of ranks keeps them."""
        return {'counts': collectives.all_reduce(self.counts).cpu()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        counts = state['counts']
        if counts.shape == self.counts.shape:
            self.counts.copy_(counts if collectives.is_main() else torch.zeros_like(counts))
