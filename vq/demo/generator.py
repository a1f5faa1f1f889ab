"""Reads the samples of the demo's generator, and measures them for its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import vq
from vq.assembly.compose import compose
from vq.assembly.counting import count
from vq.demo.facts import dataset_of, seconds_of, tokens_of
from vq.io.shards import ShardSet
from vq.report.facts import Drawn, GeneratorFacts
from vq.report.figures import Reference, Seen
from vq.report.images import as_pixels, as_tensor, read_images
from vq.report.of_generator import Learned, complete, in_words, neighbours_of
from vq.runners import journal
from vq.runners.sampler import name_of
from vq.teachers.classifier import classifier_features


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
    digits, *unknown = (read_images(dataset) for dataset in (train, *held_out))
    real = Reference(network, digits.tensor, torch.from_numpy(digits.category), tokens)
    others = torch.cat([images.tensor for images in unknown])
    labels = torch.cat([torch.from_numpy(images.category) for images in unknown])
    unseen = Seen(network, others)
    drawn, grids = {}, {}
    for how, run in (('guided', generator), ('unguided', unguided)):
        images, grids[how], asked = read_samples(runs / f'{run}_sample')
        seen = Seen(network, images)
        results = {**real.compare(seen, images, asked, grids[how]), 'fd_held_out': seen.distance(unseen)}
        drawn[how] = Drawn(as_pixels(images), asked.numpy(), seen.named.numpy(), results)
    given = torch.from_numpy(tokens_of(runs / f'{name}_tokenize', held_out[0]))
    category = torch.from_numpy(unknown[0].category)
    return GeneratorFacts(
        journal=journal.read(runs / generator / 'log.jsonl'),
        drawn=drawn,
        real=real.compare(unseen, others, labels, vq.load(runs / name).tokenize(others)),
        how='A small Llama was trained on the tokens of the training digits. It draws the tokens of a digit one after the '
        f"other, and the tokenizer's decoder turns them into pixels. {in_words(loaded)}",
        neighbours=neighbours_of(drawn['guided'], grids['guided'], Learned(train, digits.ids), tokens),
        completions=complete(loaded, network, unknown[0].ids, category, given, seed),
        parameters=count(loaded.generator),
        seconds=seconds_of(commands, generator),
        noun='digits',
        where=', on the CPU',
        names=digits.names,
    )


def read_samples(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """The output of ``vq.sample``: images (N, 3, H, W) uint8, tokens (N, h, w), the requested classes (N,)."""
    shards = ShardSet(folder / 'shards')
    images = []
    for number in shards.ids():
        with Image.open(folder / 'samples' / name_of(int(number))) as file:
            images.append(np.asarray(file.convert('RGB')))
    tokens = torch.from_numpy(shards.column('tokens')[:].astype(np.int64))
    return as_tensor(np.stack(images)), tokens, torch.from_numpy(shards.column('category')[:].astype(np.int64))


def sentence(facts: GeneratorFacts) -> str:
    """The headline in words, for a terminal."""
    ours, free = facts.drawn['guided'].results, facts.drawn['unguided'].results
    assert facts.completions is not None
    most, kept = max(ours['share_most'], free['share_most']), facts.completions.tokens_kept
    return (
        f'Of {ours["samples"]} new digits the classifier assigns {100 * ours["agreement"]:.1f} % to the requested class '
        f'({100 * free["agreement"]:.1f} % without guidance). Distance within a class {ours["within"]:.2f} '
        f'({free["within"]:.2f}) of real digits; FD to training digits {ours["fd_train"]:.2f} ({free["fd_train"]:.2f}). '
        f'They share at most {100 * most:.0f} % of the tokens with a training digit. Half digits were completed, all {kept} '
        'given tokens kept.'
    )
