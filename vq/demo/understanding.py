"""Measures the runs of ``python -m vq.demo understanding`` for its page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vq
from vq.assembly.counting import count
from vq.core.conditions import Condition
from vq.core.environment import dry_run
from vq.core.errors import RunFailure
from vq.core.random import key_of
from vq.core.records import Batch, Outputs
from vq.demo.chains import CHAINS, CODES, FOLDER, JUDGE, PARTS, TEACHER, TINY_CODES, line_of, plan
from vq.demo.generator import read_samples
from vq.io.runs import find
from vq.metrics.tokens import TokenMetric
from vq.report.facts import Drawn
from vq.report.figures import Reference, Seen, measure
from vq.report.images import Images, as_pixels, open_split, read_images
from vq.report.origin import seconds_of_training
from vq.report.understanding import COLUMNS, Side, Understanding
from vq.runners import journal
from vq.tasks.loaded import LoadedGenerator
from vq.teachers.classifier import classifier_features

SHAPE = (4, 4)  # tokens of an image
EACH = 2  # digits to show of each class
SPLITS = ('validation', 'test')  # both are held out: no setting was chosen on them
METRICS = {'psnr': {'type': 'PSNRMetric'}, 'codebook': {'type': 'CodebookMetric'}}


def gather(runs: Path, seed: int, place: list[str], machine: list[tuple[str, str]]) -> Understanding:
    """The facts of the page, about finished runs."""
    folder, codes = runs / FOLDER, TINY_CODES if dry_run() else CODES
    check_equal({name: vq.load(folder / name) for name in CHAINS}, codes)
    described = find(folder / 'vqgan').config['validator']['dataset']
    held_out, learned = join([images_of(described, split) for split in SPLITS]), images_of(described, 'train')
    judge, teacher = classifier_features(folder / JUDGE), classifier_features(folder / TEACHER)
    category, known = (torch.from_numpy(images.category) for images in (held_out, learned))
    seen, shown = Seen(judge, held_out.tensor), held_out.choose(0, EACH)
    reference = Reference(judge, learned.tensor, known, torch.zeros(0, *SHAPE, dtype=torch.int64))
    sides = {}
    for name, chain in CHAINS.items():
        pixels, generator = vq.load(folder / f'{name}{chain.decodes}'), vq.load(folder / f'{name}_ar')
        tokens = pixels.tokenize(held_out.tensor)
        made = pixels.detokenize(tokens)
        results = measure(METRICS, held_out.ids, held_out.pixels, as_pixels(made), tokens.numpy(), codes)
        results |= {f'reconstructed_{key}': value for key, value in Seen(judge, made).compare(seen, category).items()}
        results['probe'] = Seen(classifier_features(folder / f'{name}_probe'), held_out.tensor).agreement(category)
        results |= predicted(generator, tokens, category, held_out.ids)
        images, grids, asked = read_samples(folder / f'{name}_ar_sample')
        drawn = Seen(judge, images)
        results |= reference.compare(drawn, images, asked, grids) | {'fd': drawn.distance(seen)}
        complete(name, results)
        sides[name] = Side(
            title=chain.title,
            learns=chain.learns,
            own_decoder=not chain.features,
            results=results,
            reconstructions=as_pixels(made)[shown],
            drawn=Drawn(as_pixels(images), asked.numpy(), drawn.named.numpy(), results),
            journal=journal.read(folder / f'{name}_ar' / 'log.jsonl'),
            parameters=count(generator.generator),
            seconds=sum(trained_in(folder / run) for run in (name, f'{name}{chain.decodes}', f'{name}_probe', f'{name}_ar')),
        )
    return Understanding(
        sides=sides,
        tokens=math.prod(SHAPE),
        codes=codes,
        categories=[held_out.name_of(row) for row in shown],
        images=held_out.pixels[shown],
        measured=len(held_out),
        learned=len(learned),
        accuracy={'teacher': Seen(teacher, held_out.tensor).agreement(category), 'judge': seen.agreement(category)},
        fd_real=Seen(judge, learned.tensor).distance(seen),
        commands=[line_of(command) for part in PARTS for command in plan(part, runs, seed, place)],
        machine=machine,
        tiny=dry_run(),
    )


def check_equal(tokenizers: dict[str, Any], codes: int) -> None:
    """All tokenizers have as many tokens and as many codes, else their figures cannot be compared."""
    found = {name: (tokenizer.token_shape, tokenizer.codebook_size) for name, tokenizer in tokenizers.items()}
    if set(found.values()) != {(SHAPE, codes)}:
        said = '; '.join(f'{name}: tokens {shape}, {size} codes' for name, (shape, size) in found.items())
        raise RunFailure(
            f'the tokenizers are not comparable: {said}',
            f'Give each {SHAPE[0]} x {SHAPE[1]} tokens and {codes} codes, or remove the runs with --overwrite.',
        )


def complete(name: str, results: dict[str, Any]) -> None:
    """Every column of the table has a figure."""
    missing = [key for key in COLUMNS if not math.isfinite(results.get(key, math.nan))]
    if missing:
        raise RunFailure(f'{name} has no figure for {", ".join(missing)}', 'See the log of its runs, or train it again.')


def images_of(described: dict[str, Any], split: str) -> Images:
    return read_images(open_split(described, split, 'validator.dataset'))


def join(parts: list[Images]) -> Images:
    """Images of several splits, one after the other."""
    categories = [part.category for part in parts if part.category is not None]
    return Images(
        split=' and '.join(part.split for part in parts),
        total=sum(part.total for part in parts),
        ids=[name for part in parts for name in part.ids],
        pixels=np.concatenate([part.pixels for part in parts]),
        category=np.concatenate(categories),
        names=parts[0].names,
    )


@torch.no_grad()
def predicted(loaded: LoadedGenerator, tokens: Tensor, category: Tensor, ids: list[str]) -> dict[str, float]:
    """How well a generator predicts tokens (N, h, w) of held-out images, given their classes."""
    metric, keys = TokenMetric(), torch.tensor([key_of(name) for name in ids])
    for rows in torch.split(torch.arange(len(tokens)), 60):
        found = loaded.generator(tokens[rows], Condition(category[rows]))
        batch = Batch(None, [ids[row] for row in rows], keys[rows], category[rows])
        metric.update(batch, Outputs(tokens=tokens[rows], predicted=found))
    return metric.compute()


def trained_in(folder: Path) -> float:
    """Seconds of a training, without its start and its evaluations."""
    lines = [line for line in journal.read(folder / 'log.jsonl') if line['kind'] == 'train']
    return seconds_of_training(lines) or 0.0
