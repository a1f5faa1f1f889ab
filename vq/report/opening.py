"""What a report works with: the run, what ``vq.load`` gives, the images of its dataset, and how much it may compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core import trust
from vq.core.errors import UserError
from vq.core.operations import Operations
from vq.core.trust import import_modules
from vq.data.datasets.latents import LatentDataset
from vq.interfaces import Dataset, FeatureNetwork
from vq.io.runs import RUNS, Run, Weights, find
from vq.report.facts import Origin
from vq.report.images import Images, open_split, read_images

MEASURED = 1000  # held-out images to measure, at most
LEARNED = 5000  # training images, at most
PIXELS = 2.5e8  # of the training images together
WORK = {'cpu': 4e12, 'cuda': 4e15}  # operations of a pass over images, about a minute or two
ATTEMPTS = 3  # a training can delete a checkpoint while it is read


@dataclasses.dataclass
class Asked:
    """The options of a report."""

    images: int = 24
    weights: Weights = 'auto'
    device: str = 'cpu'
    classifier: str | None = None
    trust: bool = False
    work_dir: str | Path = RUNS
    seed: int = 3407


@dataclasses.dataclass
class Opened:
    """A run that is open. ``model`` is what ``vq.load`` returns, or the network of a classifier."""

    run: Run
    model: Any
    origin: Origin
    asked: Asked
    network: FeatureNetwork | None = None  # of the classifier that ``asked`` names
    classifier: Mapping[str, Any] | None = None  # its figures on real images

    def leave_out(self, what: str, reason: str | UserError) -> None:
        said = reason.message if isinstance(reason, UserError) else reason
        self.origin.left_out.append(f'{what}: {said}')

    def split(self, which: str) -> Dataset | None:
        """The dataset of the validator, or the images that the trainer learned, with the validator's preprocessing."""
        validator, trainer = ((self.run.config.get(name) or {}).get('dataset') or {} for name in ('validator', 'trainer'))
        described, split = validator or trainer, None
        if which == 'trainer':
            described, split = _as_evaluated(trainer, validator)
        words = {'validator': 'held-out images', 'trainer': 'training images'}[which]
        if not described or (which == 'validator' and not validator):
            self.leave_out(words, f'the config of the run names no {which} dataset')
            return None
        try:
            dataset = open_split(described, split, f'{which}.dataset')
            if isinstance(dataset, LatentDataset) and validator:  # a cache has no images: those that it was written from
                dataset = open_split(validator, dataset.split, f'{which}.dataset')
            len(dataset)
        except (UserError, OSError) as error:
            self.leave_out(words, error if isinstance(error, UserError) else str(error))
            return None
        return dataset

    def images(self, which: str, most: int) -> Images | None:
        """Evenly spaced images of a split, as the model takes them; None, and a line on the page, if there are none."""
        dataset = self.split(which)
        if dataset is None:
            return None
        size = self.run.spec.image
        area = 1 if size is None else size[0] * size[1]
        words = {'validator': 'held-out images', 'trainer': 'training images'}[which]
        try:
            found = read_images(dataset, max(1, min(most, int(PIXELS / area))), size)
        except (UserError, OSError) as error:
            self.leave_out(words, error if isinstance(error, UserError) else str(error))
            return None
        if found.passed_over:
            self.leave_out(f'{found.passed_over} {words}', 'they are damaged, or not of the size that the model takes')
        return found


def _as_evaluated(trainer: Mapping[str, Any], validator: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The training images with the preprocessing of evaluation: the validator's dataset with the trainer's split."""
    learned, held_out = (found.get('source') or found for found in (trainer, validator))
    if held_out.get('type') == learned.get('type') and 'split' in held_out and 'split' in learned:
        same = {**held_out, **{key: learned[key] for key in ('root', 'folder', 'name') if key in learned}}
        return same, str(learned['split'])
    if 'transform' in learned and held_out.get('transform') is not None:
        return {**learned, 'transform': held_out['transform']}, None
    return dict(learned), None


def open_run(name: str, asked: Asked, load: Callable[[Run], Any]) -> tuple[Run, Any]:
    """The run, and what ``load`` makes of it. A checkpoint that a training deletes meanwhile: once more, with the next."""
    for attempt in range(ATTEMPTS):
        run = find(name, asked.work_dir, asked.trust)
        try:
            with trust.trusting(asked.trust):
                import_modules(run.custom_imports)
                return run, load(run)
        except (UserError, OSError):
            if run.checkpoint is None or run.checkpoint.exists() or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError('the loop returns or raises')


def affordable(work: Callable[[Tensor], object], image: Tensor, asked: Asked, least: int, most: int) -> int:
    """How many images ``work`` can be applied to, by its number of operations for one: the same on every machine."""
    kind = torch.device(asked.device).type
    try:
        with Operations() as counter, torch.no_grad():
            work(image)
    except (NotImplementedError, RuntimeError):
        return least
    return int(min(most, max(least, WORK.get(kind, WORK['cpu']) / max(counter.total, 1))))


def in_batches(work: Callable[[Tensor], Tensor], rows: Tensor, size: int = 50) -> Tensor:
    """``work`` on parts of ``rows``; the result on the CPU."""
    return torch.cat([work(part).cpu() for part in torch.split(rows, size)])


def sizes_of(tokenizer: Any) -> int | Sequence[int]:
    """The sizes of a tokenizer's codebooks, in the form that metrics take."""
    return list(tokenizer.codebooks) if len(tokenizer.codebooks) > 1 else int(tokenizer.codebook_size)
