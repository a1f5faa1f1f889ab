"""Reads the samples of the demo's generator, and measures them for its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import vq
from vq.assembly.compose import compose
from vq.assembly.counting import count
from vq.core.errors import RunFailure
from vq.demo.facts import BATCH, Seen, as_tensor, categories_of, dataset_of, pixels_of, tokens_of
from vq.interfaces import Dataset, FeatureNetwork
from vq.io.shards import ShardSet
from vq.metrics.likeness import nearest_by_tokens, within_class_distance
from vq.report.generator import Completions, Drawn, GeneratorFacts, Neighbours, Pixels, seconds_of
from vq.runners import journal
from vq.runners.sampler import name_of
from vq.tasks.sequence_modeling.loaded import LoadedGenerator
from vq.tasks.sequence_modeling.task import first_half
from vq.teachers.classifier import classifier_features

NEAREST = 3  # training images to show next to a new image
CLOSEST = 5  # new images to show with the largest share of tokens of a training image


def gather(
    runs: Path,
    names: tuple[str, str, str, str],
    file: str,
    overrides: dict[str, Any],
    seed: int,
    commands: list[tuple[str, float]],
) -> GeneratorFacts:
    """The facts of the report about a generator. ``names``: runs of the tokenizer, the classifier, the generator, and the
    name of the generator's samples without guidance."""
    name, classifier, generator, unguided = names
    config = compose(file, {}, overrides)
    network, loaded = classifier_features(runs / classifier), vq.load(runs / generator)
    train, held_out = dataset_of(config, 'train'), [dataset_of(config, split) for split in ('validation', 'test')]
    tokens = torch.from_numpy(tokens_of(runs / f'{name}_tokenize_train', train))  # (M, h, w)
    digits = pixels_of(train)
    real = Reference(network, as_tensor(digits), categories_of(train), tokens)
    others = as_tensor(np.concatenate([pixels_of(dataset) for dataset in held_out]))
    labels = torch.cat([categories_of(dataset) for dataset in held_out])
    unseen = Seen(network, others)
    drawn, grids = {}, {}
    for how, run in (('guided', generator), ('unguided', unguided)):
        images, grids[how], asked = read_samples(runs / f'{run}_sample')
        seen = Seen(network, images)
        results = {**real.compare(seen, images, asked, grids[how]), 'fd_held_out': seen.distance(unseen)}
        drawn[how] = Drawn(images.permute(0, 2, 3, 1).numpy(), asked.numpy(), seen.named.numpy(), results)
    return GeneratorFacts(
        journal=journal.read(runs / generator / 'log.jsonl'),
        drawn=drawn,
        real=real.compare(unseen, others, labels, vq.load(runs / name).tokenize(others)),
        how=in_words(loaded),
        neighbours=neighbours_of(drawn['guided'], grids['guided'], train, digits, tokens),
        completions=complete(
            loaded, network, held_out[0], torch.from_numpy(tokens_of(runs / f'{name}_tokenize', held_out[0])), seed
        ),
        parameters=count(loaded.generator),
        seconds=seconds_of(commands, generator),
    )


class Reference:
    """Training images, to compare other images with."""

    def __init__(self, network: FeatureNetwork, images: Tensor, category: Tensor, tokens: Tensor) -> None:
        self.seen, self.tokens = Seen(network, images), tokens
        self.within = within_class_distance(images, category)

    def compare(self, seen: Seen, images: Tensor, category: Tensor, tokens: Tensor) -> dict[str, Any]:
        """Figures of images (N, 3, H, W) with their requested classes (N,) and tokens (N, h, w)."""
        shares, _ = nearest_by_tokens(tokens, self.tokens)
        return {
            'agreement': seen.agreement(category),
            'within': within_class_distance(images, category) / self.within,
            'fd_train': seen.distance(self.seen),
            'share_mean': float(shares.mean()),
            'share_most': float(shares.max()),
            'distinct': len(torch.unique(tokens.flatten(1), dim=0)),
            'samples': len(images),
        }


def read_samples(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """The output of ``vq.sample``: images (N, 3, H, W) uint8, tokens (N, h, w), the requested classes (N,)."""
    shards = ShardSet(folder / 'shards')
    images = []
    for number in shards.ids():
        with Image.open(folder / 'samples' / name_of(int(number))) as file:
            images.append(np.asarray(file.convert('RGB')))
    tokens = torch.from_numpy(shards.column('tokens')[:].astype(np.int64))
    return as_tensor(np.stack(images)), tokens, torch.from_numpy(shards.column('category')[:].astype(np.int64))


def in_words(loaded: LoadedGenerator) -> str:
    """A sentence on the sampling settings in the config of the run."""
    sampler, guidance = loaded.task.sampler, loaded.task.guidance
    temperature = getattr(sampler, 'keywords', {}).get('temperature', 1.0)
    scale = getattr(guidance, 'keywords', {}).get('scale', getattr(guidance, 'scale', 1.0))
    return f'The config sets temperature {temperature:g} and guidance {scale:g} (1 is no guidance).'


def neighbours_of(
    drawn: Drawn, grids: Tensor, train: Dataset, digits: Pixels, tokens: Tensor, closest: int = CLOSEST
) -> Neighbours:
    """The first image of each class and the ``closest`` to any training image, each with its nearest training images."""
    shares, rows = nearest_by_tokens(grids, tokens, NEAREST)
    first = [int(np.flatnonzero(drawn.asked == category)[0]) for category in np.unique(drawn.asked)]
    by_share = shares[:, 0].argsort(descending=True, stable=True).tolist()
    chosen = [*first, *[index for index in by_share if index not in first][:closest]]
    return Neighbours(
        categories=[str(drawn.asked[index]) for index in chosen],
        images=drawn.images[chosen],
        training=digits[rows[chosen].numpy()],
        ids=[[train.id_of(index) for index in found] for found in rows[chosen].tolist()],
        shares=shares[chosen].numpy(),
    )


def complete(loaded: LoadedGenerator, network: FeatureNetwork, dataset: Dataset, tokens: Tensor, seed: int) -> Completions:
    """Resample the second half of every image of a split, and twice for the first image of each class."""
    category, keep = categories_of(dataset), first_half(tuple(tokens.shape[1:]), torch.device('cpu'))
    shown = first_of_each(category.numpy())
    made = loaded.sample_tokens(category.tolist(), given=tokens, keep=keep, seed=seed)
    again = loaded.sample_tokens(category[shown].tolist(), given=tokens[shown], keep=keep, seed=seed + 1)
    for found, wanted in ((made, tokens), (again, tokens[shown])):
        check_kept(found, wanted, keep)
    pictures = loaded.detokenize(made)
    named = torch.cat([network(part).logits.argmax(1) for part in torch.split(pictures, BATCH)])
    both = torch.stack([pictures[shown], loaded.detokenize(again)], 1)  # (n, 2, 3, H, W)
    return Completions(
        categories=[str(number) for number in category[shown].tolist()],
        ids=[dataset.id_of(index) for index in shown],
        images=loaded.detokenize(tokens[shown]).permute(0, 2, 3, 1).numpy(),
        kept=keep.numpy(),
        made=both.permute(0, 1, 3, 4, 2).numpy(),
        tokens_kept=int(keep.sum()) * len(tokens),
        completed=len(tokens),
        agreement=float((named == category).double().mean()),
    )


def check_kept(made: Tensor, given: Tensor, keep: Tensor) -> None:
    """Raise unless all given tokens (N, h, w) are unchanged where ``keep`` (h, w) is True."""
    changed = int((made != given)[:, keep].sum())
    if changed:
        raise RunFailure(
            f'{changed} tokens that had to be kept were changed',
            'This is a bug in vq: please report it.',
        )


def first_of_each(category: NDArray[np.int64] | Sequence[int]) -> list[int]:
    """The row of the first image of each class, in class order."""
    return [int(row) for row in np.unique(np.asarray(category), return_index=True)[1]]
