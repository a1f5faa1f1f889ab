"""Collects results of the demo's commands for its report, and measures the k-means baseline."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import vq
from vq.assembly.compose import compose
from vq.assembly.counting import count
from vq.core.config import PyConfig
from vq.core.environment import dry_run
from vq.core.errors import RunFailure
from vq.core.parameters import parameters_of
from vq.core.random import key_of, python_stream
from vq.core.records import Batch, Outputs, to_float
from vq.interfaces import Dataset, FeatureNetwork
from vq.io import checkpoints
from vq.io.shards import ShardSet
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.statistics import FeatureStatistics, Moments
from vq.registries import VQDatasetRegistry, VQMetricRegistry
from vq.report import baseline
from vq.report.baseline import PatchKMeans, Pixels
from vq.report.generator import Results
from vq.report.tokenizer import Facts, Samples
from vq.runners import journal
from vq.teachers.classifier import classifier_features

EACH = 3  # digits to show of each class
BATCH = 100  # batch size of the classifier


def gather(
    runs: Path,
    names: tuple[str, str],
    file: str,
    overrides: dict[str, Any],
    seed: int,
    commands: list[tuple[str, float]],
    machine: list[tuple[str, str]],
) -> Facts:
    """The facts of the report about two runs: a tokenizer, and the classifier that evaluates its reconstructions."""
    name, classifier = names[0], runs / names[1]
    config = compose(file, {}, overrides)
    folder, tiny = runs / name, dry_run()
    tokenizer = vq.load(folder)
    train, held_out = dataset_of(config, 'train'), {split: dataset_of(config, split) for split in ('validation', 'test')}
    train_images = pixels_of(train)
    patch = train_images.shape[1] // tokenizer.token_shape[0]
    if tiny:
        kmeans = baseline.fit(train_images[:96], tokenizer.codebook_size, patch, seed, iterations=2)
    else:
        kmeans = baseline.fit(train_images, tokenizer.codebook_size, patch, seed)
    pixels = {split: pixels_of(dataset) for split, dataset in held_out.items()}
    steps = [
        (step, read(folder / 'val' / path.name / 'results.json'))
        for step, path in checkpoints.list_complete(folder / 'checkpoints')
    ]
    ours = {'validation': steps[-1][1], 'test': read(runs / f'{name}_test' / 'results.json')}
    network = classifier_features(classifier)
    last = checkpoints.list_complete(classifier / 'checkpoints')[-1][1].name

    def compared(split: str) -> tuple[Results, Results]:
        """(tokenizer, k-means): metrics of reconstructions, with those that use the classifier."""
        dataset, images = held_out[split], pixels[split]
        category, real = categories_of(dataset), Seen(network, as_tensor(images))
        made, coarse = tokenizer.detokenize(tokenizer.tokenize(as_tensor(images))), kmeans.tokenize(images)
        other = kmeans.detokenize(coarse)
        return (
            ours[split] | Seen(network, made).compare(real, category),
            measure(config, dataset, images, other, coarse) | Seen(network, as_tensor(other)).compare(real, category),
        )

    tokens = {
        'train': tokens_of(runs / f'{name}_tokenize_train', train),
        'validation': tokens_of(runs / f'{name}_tokenize', held_out['validation']),
    }
    reconstructions = decode(tokenizer.detokenize, tokens['validation'])
    check_decoded(
        config, held_out['validation'], pixels['validation'], reconstructions, tokens['validation'], ours['validation']
    )
    return Facts(
        name=name,
        journal=journal.read(folder / 'log.jsonl'),
        validations=steps,
        held_out={split: compared(split) for split in held_out},
        classifier=read(classifier / 'val' / last / 'results.json'),
        samples=choose(held_out['validation'], pixels['validation'], reconstructions, kmeans, tokens['validation']),
        counts={
            split: np.bincount(found.ravel(), minlength=tokenizer.codebook_size).tolist() for split, found in tokens.items()
        },
        code_pictures=mean_patches(train_images, tokens['train'], tokenizer.codebook_size),
        baseline_pictures=kmeans.patches,
        train_images=len(train),
        parameters=count(tokenizer.model),
        image_size=train_images.shape[1],
        bits=float(tokenizer.model.bits),  # type: ignore[arg-type]
        commands=commands,
        config=config.dumps(),
        machine=[*machine, ('k-means, seconds', f'{kmeans.seconds:.1f}')],
        tiny=tiny,
    )


def dataset_of(config: PyConfig, split: str) -> Dataset:
    """A split, with the dataset settings of the validator."""
    dataset: Dataset = VQDatasetRegistry.build({**config.validator.dataset, 'split': split}, 'validator.dataset')
    return dataset


def pixels_of(dataset: Dataset) -> Pixels:
    """All images (N, H, W, 3)."""
    return np.stack([dataset.load(index, python_stream('demo'))['image'] for index in range(len(dataset))])


def read(file: Path) -> dict[str, Any]:
    """The figures of a results file."""
    results: dict[str, Any] = json.loads(file.read_text())['results']
    return results


def tokens_of(folder: Path, dataset: Dataset) -> NDArray[np.int64]:
    """Tokens (N, h, w) in the order of the dataset."""
    shards = ShardSet(folder / 'tokens')
    place = {sample: row for row, sample in enumerate(shards.ids())}
    rows = [place[dataset.id_of(index)] for index in range(len(dataset))]
    tokens: NDArray[np.int64] = shards.column('tokens')[rows][:, 0].astype(np.int64)
    return tokens


def decode(detokenize: Callable[[Tensor], Tensor], tokens: NDArray[np.int64]) -> Pixels:
    """Tokens (N, h, w) -> images (N, H, W, 3)."""
    parts = [detokenize(part) for part in torch.split(torch.from_numpy(tokens), 60)]
    return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def measure(config: PyConfig, dataset: Dataset, images: Pixels, made: Pixels, tokens: NDArray[np.int64]) -> dict[str, Any]:
    """The validator's metrics on other 8-bit reconstructions, with a codebook of the same size."""
    sizes = {'codebook_size': config.trainer.model.tokenizer.quantizer.codebook_size}  # a validator binds it to its model
    ids = [dataset.id_of(index) for index in range(len(dataset))]
    batch = Batch(as_tensor(images), ids, torch.tensor([key_of(sample) for sample in ids]))
    outputs = Outputs(to_float(as_tensor(made)), torch.from_numpy(tokens))
    found: dict[str, Any] = {'samples': len(ids)}
    for name, described in config.validator.metrics.items():
        takes = parameters_of(VQMetricRegistry.parse(described.type)[1])
        given = {key: value for key, value in sizes.items() if key in takes}
        metric = VQMetricRegistry.build(described, f'validator.metrics.{name}', **given)
        metric.update(batch, outputs)
        found.update(metric.compute())
    return found


class Seen:
    """Features and predictions of a digits classifier for images (N, 3, H, W) uint8."""

    def __init__(self, network: FeatureNetwork, images: Tensor) -> None:
        statistics, named = FeatureStatistics(network.dimension), []
        for part in torch.split(images, BATCH):
            features = network(part)
            statistics.update(features.pooled)
            named.append(features.logits.argmax(1))
        self.moments: Moments = statistics.compute()
        self.named = torch.cat(named)  # (N,)

    def distance(self, other: Seen) -> float:
        return frechet_distance(self.moments, other.moments).value

    def agreement(self, category: Tensor) -> float:
        """The share of images whose predicted class is ``category`` (N,)."""
        return float((self.named == category).double().mean())

    def compare(self, originals: Seen, category: Tensor) -> dict[str, Any]:
        """For reconstructions: the distance to their originals, and the accuracy of the classifier on them."""
        return {'fd': self.distance(originals), 'recognised': self.agreement(category)}


def categories_of(dataset: Dataset) -> Tensor:
    """The classes (N,) int64 of a dataset."""
    stream = python_stream('demo')
    return torch.tensor([int(dataset.load(index, stream)['category']) for index in range(len(dataset))])


def check_decoded(
    config: PyConfig, dataset: Dataset, images: Pixels, made: Pixels, tokens: NDArray[np.int64], validated: Mapping[str, Any]
) -> None:
    """Raise unless token files decode to the images of validation: equal codes, and equal images up to rounding."""
    found = measure(config, dataset, images, made, tokens)
    if abs(found['psnr'] - validated['psnr']) > 0.02 or found['dead_codes'] != validated['dead_codes']:
        raise RunFailure(
            f'images decoded from the token files have {found["psnr"]:.3f} dB and {found["dead_codes"]:.0f} dead codes; '
            f'validation measured {validated["psnr"]:.3f} dB and {validated["dead_codes"]:.0f}',
            'This is a bug in vq: tokens must decode to the same images everywhere. Please report it.',
        )


def choose(dataset: Dataset, images: Pixels, made: Pixels, kmeans: PatchKMeans, tokens: NDArray[np.int64]) -> Samples:
    """The first few samples of each class, without selection."""
    stream, by_class = python_stream('demo'), {}  # type: ignore[var-annotated]
    for index in range(len(dataset)):
        by_class.setdefault(int(dataset.load(index, stream)['category']), []).append(index)
    rows = [index for category in sorted(by_class) for index in by_class[category][:EACH]]
    names = dataset.categories or [str(category) for category in sorted(by_class)]
    return Samples(
        categories=[names[category] for category in sorted(by_class) for _ in by_class[category][:EACH]],
        ids=[dataset.id_of(index) for index in rows],
        images=images[rows],
        reconstructions=made[rows],
        baseline=kmeans.detokenize(kmeans.tokenize(images[rows])),
        tokens=tokens[rows],
    )


def mean_patches(images: Pixels, tokens: NDArray[np.int64], codes: int) -> Pixels:
    """The mean of the patches assigned to each code (K, p, p, 3); zero for unused codes."""
    patch = images.shape[1] // tokens.shape[1]
    rows, flat = baseline.cut(images, patch), tokens.reshape(-1)
    sums = np.zeros((codes, rows.shape[1]), np.float64)
    for code in range(codes):  # sums of integers are exact in any order
        sums[code] = rows[flat == code].sum(0, dtype=np.float64)
    means = sums / np.maximum(np.bincount(flat, minlength=codes), 1)[:, None]
    return np.rint(means).astype(np.uint8).reshape(codes, patch, patch, 3)


def as_tensor(images: Pixels) -> Tensor:
    """(N, H, W, 3) -> (N, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
