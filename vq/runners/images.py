"""Metrics of existing images, without a model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.random import python_stream
from vq.core.records import Batch, Outputs, to_float
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import evaluation_plan
from vq.interfaces import Dataset, Metric, Strategy, Task
from vq.io.digest import file_digest
from vq.io.ranks import run_on_all_ranks
from vq.metrics.features.blocks import Blocks
from vq.metrics.features.metric import FeatureMetric
from vq.metrics.features.reference import Reference, write_reference
from vq.metrics.features.store import Collected, FeatureStore
from vq.registries import VQRunnerRegistry
from vq.runners.named import Callbacks
from vq.runners.progress import ProgressBar
from vq.runners.protocol import ValidatorLike
from vq.runners.validator import Validator

logger = logging.getLogger('vq')


class AsTheyAre(Task):
    """Computes nothing. The 'other' image of a dataset of pairs takes the place of a reconstruction."""

    def validation_step(self, batch: Batch) -> Outputs:
        other = batch.extra.get('other')
        return Outputs() if other is None else Outputs(reconstruction=to_float(other))


@VQRunnerRegistry.register_()
class ImagesValidator(Validator):
    """A pass over images or pairs of images, without a model.

    ``reference``: images to compare with. First, the network of each FeatureMetric measures them, and the result is written
    to the file that the metric names as its reference. The metric then reads this file like any other reference.
    """

    def __init__(
        self,
        dataset: Dataset,
        dataloader: LoaderSettings,
        strategy: Strategy,
        metrics: dict[str, Metric],
        reference: Dataset | None = None,
        callbacks: Callbacks[ValidatorLike] = None,
    ) -> None:
        super().__init__(AsTheyAre(), dataset, dataloader, strategy, metrics, callbacks)
        self.reference = reference

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        if self.reference is not None:
            for metric in self.metrics.values():
                if isinstance(metric, FeatureMetric):
                    self._write_reference(metric, self.reference)
        return super().evaluate()

    def _write_reference(self, metric: FeatureMetric, dataset: Dataset) -> None:
        """Measure the reference images for a metric: statistics, and features in fp32."""
        if metric.reference_name is None:
            raise ConfigError(
                'there is no file to write the measured reference images to', "Name one as the FeatureMetric's reference."
            )
        store = FeatureStore(metric.store.statistics, tuple(name for name in metric.store.keep if name != 'logits'))
        blocks = Blocks(metric.network, store)
        rank, world = self.strategy.rank, self.strategy.world_size
        plan = list(evaluation_plan(len(dataset), self.dataloader.per_rank(world), rank, world))
        size: list[int] | None = None
        bar = ProgressBar('reference', sum(map(len, plan)), 'images', visible=collectives.is_main())
        with Loader(dataset, plan, self.dataloader, self.context.seed, training=False) as loader, bar:
            for host_batch in loader:
                batch = self.strategy.to_device(host_batch)
                image = batch.pixels()
                size = [int(image.shape[-2]), int(image.shape[-1])]
                blocks.add(batch.key, image)
                bar.advance(len(batch))
        blocks.finish()
        reference = self._reference(metric, dataset, store.finish(), size)
        file = Path(metric.reference_name)
        run_on_all_ranks(lambda: write_reference(file, reference) if collectives.is_main() else None, 'writing the reference')

    def _reference(self, metric: FeatureMetric, dataset: Dataset, found: Collected, size: list[int] | None) -> Reference:
        sizes = [known for known in collectives.all_gather_object(size) if known is not None]
        files = [file for file in metric.network.pretrained_files() if file.is_file()]
        about = {
            **metric.network.description,
            'network_hash': '+'.join(file_digest(file)[:16] for file in files) or 'random weights',
            'image_size': sizes[0],
            'dataset': dataset.name,
            'split': dataset.split,
            'fingerprint': dataset.fingerprint(),
            'repeated': found.repeated,
        }
        names = tuple(name for name in metric.store.keep if name != 'logits')
        rows = {name: kept for name in names if (kept := found.rows(name)) is not None}
        return Reference(dataset.name, dict(found.moments), about, rows)


class Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """The images of a dataset one by one, uint8 (3, H, W), as other packages expect them."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = self.dataset.load(index, python_stream('sample', 0, 0, index))['image']
        return torch.from_numpy(image.copy()).permute(2, 0, 1)
