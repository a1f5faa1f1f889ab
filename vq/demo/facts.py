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
from vq.interfaces import Dataset
from vq.io import checkpoints
from vq.io.shards import ShardSet
from vq.report import baseline, figures
from vq.report.baseline import PatchKMeans
from vq.report.codebook import mean_patches
from vq.report.facts import Facts, Origin, Pixels, Results, Samples, TokenizerFacts
from vq.report.figures import Seen
from vq.report.images import Images, as_tensor, open_split, read_images
from vq.runners import journal
from vq.teachers.classifier import classifier_features

EACH = 3  # digits to show of each class


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
    train_images = read_images(train).pixels
    patch = train_images.shape[1] // tokenizer.token_shape[0]
    if tiny:
        kmeans = baseline.fit(train_images[:96], tokenizer.codebook_size, patch, seed, iterations=2)
    else:
        kmeans = baseline.fit(train_images, tokenizer.codebook_size, patch, seed)
    images = {split: read_images(dataset) for split, dataset in held_out.items()}
    steps = [
        (step, read(folder / 'val' / path.name / 'results.json'))
        for step, path in checkpoints.list_complete(folder / 'checkpoints')
    ]
    ours = {'validation': steps[-1][1], 'test': read(runs / f'{name}_test' / 'results.json')}
    network = classifier_features(classifier)
    last = checkpoints.list_complete(classifier / 'checkpoints')[-1][1].name

    def compared(split: str) -> tuple[Results, Results]:
        """(tokenizer, k-means): metrics of reconstructions, with those that use the classifier."""
        found = images[split]
        category, real = torch.from_numpy(found.category), Seen(network, found.tensor)
        made, coarse = tokenizer.detokenize(tokenizer.tokenize(found.tensor)), kmeans.tokenize(found.pixels)
        other = kmeans.detokenize(coarse)
        return (
            ours[split] | Seen(network, made).compare(real, category),
            measure(config, found, other, coarse) | Seen(network, as_tensor(other)).compare(real, category),
        )

    tokens = {
        'train': tokens_of(runs / f'{name}_tokenize_train', train),
        'validation': tokens_of(runs / f'{name}_tokenize', held_out['validation']),
    }
    reconstructions = decode(tokenizer.detokenize, tokens['validation'])
    check_decoded(config, images['validation'], reconstructions, tokens['validation'], ours['validation'])
    lines = journal.read(folder / 'log.jsonl')
    origin = Origin(
        name=name,
        journal=lines,
        commands=commands,
        config=config.dumps(),
        machine=[*machine, ('k-means, seconds', f'{kmeans.seconds:.1f}')],
        commands_are='The demo ran these commands in this order; the time above a command is its duration. With two cores the '
        'classifier trains at the same time as the tokenizer.',
        tiny=tiny,
    )
    measured = TokenizerFacts(
        validations=steps,
        held_out={split: compared(split) for split in held_out},
        classifier=read(classifier / 'val' / last / 'results.json'),
        samples=choose(images['validation'], reconstructions, kmeans, tokens['validation']),
        counts={
            split: np.bincount(found.ravel(), minlength=tokenizer.codebook_size).tolist() for split, found in tokens.items()
        },
        codes=tokenizer.codebook_size,
        code_pictures=mean_patches(train_images, tokens['train'], tokenizer.codebook_size),
        baseline_pictures=kmeans.patches,
        train_images=len(train),
        parameters=count(tokenizer.model),
        image_size=train_images.shape[1],
        bits=float(tokenizer.model.bits),
        tokens=tokens['validation'][0].size,
        seconds=seconds_of(commands, name),
        noun='digits',
        chosen='The first three of each class, decoded from the token files alone.',
        where=', on the CPU',
    )
    return Facts(origin, tokenizer=measured)


def seconds_of(commands: list[tuple[str, float]], name: str) -> float:
    """The duration of ``vq.train NAME``."""
    return next(seconds for line, seconds in commands if f' -m vq.train {name} ' in line)


def dataset_of(config: PyConfig, split: str) -> Dataset:
    """A split, with the dataset settings of the validator."""
    return open_split(config.validator.dataset, split, 'validator.dataset')


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


def measure(config: PyConfig, images: Images, made: Pixels, tokens: NDArray[np.int64]) -> dict[str, Any]:
    """The validator's metrics on other 8-bit reconstructions, with a codebook of the same size."""
    codes: int = config.trainer.model.tokenizer.quantizer.codebook_size
    return figures.measure(config.validator.metrics, images.ids, images.pixels, made, tokens, codes)


def check_decoded(
    config: PyConfig, images: Images, made: Pixels, tokens: NDArray[np.int64], validated: Mapping[str, Any]
) -> None:
    """Raise unless token files decode to the images of validation: equal codes, and equal images up to rounding."""
    found = measure(config, images, made, tokens)
    if abs(found['psnr'] - validated['psnr']) > 0.02 or found['dead_codes'] != validated['dead_codes']:
        raise RunFailure(
            f'images decoded from the token files have {found["psnr"]:.3f} dB and {found["dead_codes"]:.0f} dead codes; '
            f'validation measured {validated["psnr"]:.3f} dB and {validated["dead_codes"]:.0f}',
            'This is a bug in vq: tokens must decode to the same images everywhere. Please report it.',
        )


def choose(images: Images, made: Pixels, kmeans: PatchKMeans, tokens: NDArray[np.int64]) -> Samples:
    """The first few samples of each class, without selection."""
    rows = images.choose(0, EACH)
    return Samples(
        categories=[images.name_of(row) for row in rows],
        ids=[images.ids[row] for row in rows],
        images=images.pixels[rows],
        reconstructions=made[rows],
        baseline=kmeans.detokenize(kmeans.tokenize(images.pixels[rows])),
        tokens=tokens[rows],
    )
