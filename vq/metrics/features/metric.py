"""FID and related figures as a metric of a validation pass: one forward pass per image serves all figures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError, UserError
from vq.core.records import Batch, Outputs, to_uint8
from vq.interfaces import FeatureNetwork, Metric
from vq.io.digest import file_digest
from vq.io.ranks import run_on_all_ranks
from vq.metrics.features.blocks import Blocks
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.inception_score import inception_score
from vq.metrics.features.kernels import cmmd, kernel_distance
from vq.metrics.features.neighbours import density_coverage, precision_recall
from vq.metrics.features.reference import Reference, read_reference
from vq.metrics.features.statistics import Moments
from vq.metrics.features.store import Collected, FeatureStore
from vq.registries import VQMetricRegistry

logger = logging.getLogger('vq')

Figure = Literal['fid', 'sfid', 'inception_score', 'kid', 'precision_recall', 'density_coverage', 'cmmd']

STATISTICS = {'fid': 'pooled', 'sfid': 'spatial'}  # figure -> field of Features whose mean and covariance it needs
ROWS = {
    'inception_score': 'logits',
    'kid': 'pooled',
    'precision_recall': 'pooled',
    'density_coverage': 'pooled',
    'cmmd': 'pooled',
}


@VQMetricRegistry.register_()
class FeatureMetric(Metric):
    """Figures that compare a network's features of generated or reconstructed images with those of a reference set.

    - ``figures``: 'fid' (Frechet distance of pooled features), 'sfid' (of spatial features), 'inception_score', 'kid',
      'precision_recall', 'density_coverage', 'cmmd'. All but the first two need the features of each image of both sets.
    - ``reference``: the name of cached statistics (``vq.fid`` writes them), or None: the original images of the same pass,
      so that 'fid' compares reconstructions with their own originals.
    - ``images``: 'reconstruction'; 'generated', the images drawn by a generator for the samples of the pass; or 'input', to
      compare the dataset itself with the reference.
    - ``prefix``: prepended to the names of the figures, for configs with several networks ('dinov2_').

    Every image counts once, by its id. Figures do not depend on batch size, order or ranks.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        figures: tuple[Figure, ...] = ('fid',),
        reference: str | None = None,
        images: Literal['reconstruction', 'generated', 'input'] = 'reconstruction',
        prefix: str = '',
        splits: int = 10,
        subsets: int = 100,
        subset_size: int = 1000,
    ) -> None:
        known = {*STATISTICS, *ROWS}
        if not figures or set(figures) - known:
            raise ConfigError(f'FeatureMetric has figures {list(figures)}', f'There are: {", ".join(sorted(known))}.')
        if images not in ('reconstruction', 'generated', 'input'):
            raise ConfigError(f"FeatureMetric measures '{images}'", "It measures 'reconstruction', 'generated' or 'input'.")
        if images == 'input' and reference is None and set(figures) != {'inception_score'}:
            raise ConfigError('FeatureMetric would compare images with themselves', 'Give it a reference.')
        self.network: FeatureNetwork = network
        self.figures, self.reference_name, self.images, self.prefix = tuple(figures), reference, images, prefix
        self.splits, self.subsets, self.subset_size = splits, subsets, subset_size
        statistics = tuple(dict.fromkeys(STATISTICS[figure] for figure in self.figures if figure in STATISTICS))
        rows = tuple(dict.fromkeys(ROWS[figure] for figure in self.figures if figure in ROWS))
        self.store = FeatureStore(statistics or ('pooled',), rows)
        compares = any(figure != 'inception_score' for figure in self.figures)
        own_rows = tuple(name for name in rows if name != 'logits')
        self.originals = FeatureStore(statistics or ('pooled',), own_rows) if reference is None and compares else None
        self.about: dict[str, Any] = {}
        self.reference: Reference | None = None

    def reset(self) -> None:
        self.store.reset()
        self.made = Blocks(self.network, self.store)
        if self.originals is not None:
            self.originals.reset()
            self.real = Blocks(self.network, self.originals)
        self.about = dict(self.network.description)
        self.sizes: set[tuple[int, int]] = set()
        self.notes: list[str] = []
        if self.reference_name is not None:  # at the start of the pass, so that an error does not come after hours
            self.reference = read_reference(self.reference_name)
            self._check_rows(self.reference)

    def update(self, batch: Batch, outputs: Outputs) -> None:
        made = outputs.reconstruction if self.images == 'reconstruction' else outputs.pictures.get('generated')
        if self.images == 'input':
            image = batch.pixels()
        elif made is None:
            what = 'reconstructions' if self.images == 'reconstruction' else 'generated images'
            raise ConfigError(
                f'{self.prefix}{self.figures[0]} needs {what}, and this model has none',
                "Leave FeatureMetric out of the metrics, or give it images='input'.",
            )
        else:
            image = to_uint8(made)
        self.sizes.add((int(image.shape[-2]), int(image.shape[-1])))
        self.made.add(batch.key, image)
        if self.originals is not None:
            self.real.add(batch.key, batch.pixels())

    def compute(self) -> dict[str, float]:
        self.made.finish()
        collected = self.store.finish()
        self.about |= {'count': collected.count, 'repeated': collected.repeated, 'image_size': self._image_size()}
        self.about['network_hash'] = self._network_hash()
        reference = self.reference
        if self.originals is not None:
            self.real.finish()
            reference = self._own_reference(self.originals.finish())
        elif reference is not None:
            silent = reference.check(self.about)
            if silent:
                self._note(f"the file of the reference '{reference.name}' does not record {', '.join(silent)}")
        self.about['reference'] = None if reference is None else reference.describe()
        rows = {name: collected.rows(name) for name in self.store.keep}  # collective; only the main rank gets the rows

        def measure() -> tuple[dict[str, float], list[str]]:
            figures: dict[str, float] = {}
            for figure in self.figures if collectives.is_main() else ():
                figures |= self._measure(figure, collected, rows, reference)
            return figures, self.notes

        figures, self.notes = run_on_all_ranks(measure, 'computing figures from features')[0]
        named = {f'{self.prefix}{name}': value for name, value in figures.items()}
        self.about['figures'] = list(named)
        return named

    def describe(self) -> dict[str, Any]:
        """Everything that the figures depend on: network, preprocessing, reference, counts."""
        return {**self.about, 'notes': self.notes} if self.notes else dict(self.about)

    def _measure(
        self, figure: Figure, collected: Collected, rows: dict[str, Tensor | None], reference: Reference | None
    ) -> dict[str, float]:
        if figure == 'inception_score':
            logits = rows['logits']
            assert logits is not None
            score = inception_score(logits, self.splits)
            return {'inception_score': score.mean, 'inception_score_std': score.std}
        assert reference is not None
        if figure in STATISTICS:
            distance = frechet_distance(collected.moments[STATISTICS[figure]], self._moments(reference, STATISTICS[figure]))
            self.notes += [note for note in distance.notes if note not in self.notes]  # logged already
            return {figure: distance.value}
        made, real = rows[ROWS[figure]], reference.rows[ROWS[figure]].float()
        assert made is not None
        measures: dict[str, Callable[[], dict[str, float]]] = {
            'kid': lambda: self._kernel_distance(made, real),
            'precision_recall': lambda: _named(precision_recall(real, made), 'precision', 'recall'),
            'density_coverage': lambda: _named(density_coverage(real, made), 'density', 'coverage'),
            'cmmd': lambda: {'cmmd': cmmd(made, real)},
        }
        return measures[figure]()

    def _kernel_distance(self, made: Tensor, real: Tensor) -> dict[str, float]:
        size = min(self.subset_size, len(made), len(real))
        if size < self.subset_size:
            self._note(f'kid: subsets of {size} in place of {self.subset_size}, as there are no more images')
        distance = kernel_distance(made, real, self.subsets, size)
        return {'kid': distance.mean, 'kid_std': distance.std}

    def _own_reference(self, collected: Collected) -> Reference:
        rows = {name: collected.rows(name) for name in (self.originals.keep if self.originals is not None else ())}
        found = {name: value for name, value in rows.items() if value is not None}
        return Reference('the images themselves', dict(collected.moments), {}, found)

    def _moments(self, reference: Reference, field: str) -> Moments:
        if field not in reference.moments:
            raise UserError(
                f"the reference '{reference.name}' has no statistics of {field} features", 'Leave sfid out of the figures.'
            )
        return reference.moments[field]

    def _check_rows(self, reference: Reference) -> None:
        for figure in self.figures:
            if figure in STATISTICS:
                self._moments(reference, STATISTICS[figure])
            elif figure != 'inception_score' and ROWS[figure] not in reference.rows:
                raise UserError(
                    f"{figure} needs the features of the reference '{reference.name}', and its file has statistics alone",
                    'Write the features too: auto_torchrun -m vq.fid DATASET --features.',
                )

    def _image_size(self) -> list[int] | None:
        sizes = sorted({size for part in collectives.all_gather_object(sorted(self.sizes)) for size in part})
        if len(sizes) > 1:
            self._note(f'images of {len(sizes)} sizes, from {sizes[0]} to {sizes[-1]}')
            return None
        return list(sizes[0]) if sizes else None

    def _network_hash(self) -> str:
        files = [file for file in self.network.pretrained_files() if file.is_file()]
        return '+'.join(file_digest(file)[:16] for file in files) or 'random weights'

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            if collectives.is_main():
                logger.warning('%s', text)


def _named(figures: Any, *names: str) -> dict[str, float]:
    return {name: getattr(figures, name) for name in names}
