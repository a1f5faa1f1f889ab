"""The facts of several runs side by side: configs, journals, results, and pictures from the same images, classes and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vq.assembly.counting import count
from vq.core.errors import UserError
from vq.core.reading import read_json
from vq.io import history
from vq.io.runs import Run
from vq.loading import LoadedTokenizer
from vq.report import figures
from vq.report.facts import Origin, Pixels
from vq.report.images import Images, as_pixels, spaced
from vq.report.of_generator import name_of, names_of
from vq.report.of_run import open_model
from vq.report.opening import MEASURED, Asked, Opened, affordable, in_batches, open_run, sizes_of
from vq.report.origin import origin_of
from vq.tasks.loaded import LoadedGenerator


@dataclasses.dataclass
class Side:
    """One of the runs."""

    run: Run
    origin: Origin
    parameters: int
    reconstructions: Pixels | None = None
    drawn: Pixels | None = None


@dataclasses.dataclass
class Compared:
    """Runs side by side."""

    runs: dict[str, Side]
    records: dict[str, Mapping[str, Any]]  # label -> a record of results, of runs and of files
    inputs: Images | None = None  # what the tokenizers reconstruct
    classes: list[str] = dataclasses.field(default_factory=list)  # names of what the generators draw
    seed: int = 3407
    left_out: list[str] = dataclasses.field(default_factory=list)


def gather(names: Sequence[str], asked: Asked, records: Mapping[str, Mapping[str, Any]]) -> Compared:
    """``records``: of results files that are compared with the runs, by file."""
    opened = {}
    for name in names:
        run, model = open_run(name, asked, lambda run: open_model(run, asked))
        opened[name] = Opened(run, model, origin_of(run), asked)
    found = Compared({}, {}, seed=asked.seed)
    held_out: dict[str, Images] = {}
    for name, one in opened.items():
        images = one.images('validator', MEASURED) if one.run.spec.kind != 'generator' else None
        if images is not None:
            held_out[name] = images
        found.runs[name] = Side(one.run, one.origin, count(part_of(one)))
        record = record_of(one, images)
        if record is None:
            found.left_out.append(f'figures of {name}: there is no evaluation of its last checkpoint')
        else:
            found.records[name] = record
    found.records |= records
    reconstruct_same(found, opened, held_out)
    draw_same(found, opened)
    found.left_out += [f'{name}: {reason}' for name, one in opened.items() for reason in one.origin.left_out]
    return found


def part_of(opened: Opened) -> Any:
    """The module whose parameters are counted."""
    model = opened.model
    if isinstance(model, LoadedGenerator):
        return next(iter(model.task.roots().values()))
    return getattr(model, 'classifier', getattr(model, 'model', model))


def record_of(opened: Opened, images: Images | None) -> dict[str, Any] | None:
    """The results of the checkpoint: of ``vq val``, of the evaluation during training, or measured now."""
    run = opened.run
    record = validated(run)
    if record is not None:
        return record
    dataset = opened.split('validator')
    data = None if dataset is None else {'name': dataset.name, 'split': dataset.split, 'fingerprint': dataset.fingerprint()}
    if run.checkpoint is not None:
        step = history.step_of(run.checkpoint)
        lines = [line for line in opened.origin.journal if line['kind'] == 'eval' and line['step'] == step]
        if lines:
            results = {name: value for name, value in lines[-1].items() if name not in ('step', 'kind')}
            return {'name': run.name, 'results': results, 'dataset': data}
    tokenizer = opened.model
    if not isinstance(tokenizer, LoadedTokenizer) or images is None or not tokenizer.model.can_decode:
        return None
    able = affordable(
        tokenizer.reconstruct, images.tensor[:1], opened.asked, min(len(images), opened.asked.images), len(images)
    )
    images = images.first(able)
    tokens = None if tokenizer.continuous else in_batches(tokenizer.tokenize, images.tensor)
    made = in_batches(tokenizer.reconstruct, images.tensor)
    metrics, _ = figures.metrics_of(run.config, tokenizer.continuous)
    sizes = 0 if tokenizer.continuous else sizes_of(tokenizer.model)
    found = None if tokens is None else tokens.numpy()
    results = figures.measure(metrics, images.ids, images.pixels, as_pixels(made), found, sizes)
    return {'name': run.name, 'results': results, 'dataset': data}


def validated(run: Run) -> dict[str, Any] | None:
    """The results file of ``vq val`` for the checkpoint; None if it was not validated."""
    if run.folder is None or run.checkpoint is None:
        return None
    try:
        record = read_json(run.folder / 'val' / run.checkpoint.name / 'results.json')
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get('results'), dict) else None


def reconstruct_same(found: Compared, opened: Mapping[str, Opened], held_out: Mapping[str, Images]) -> None:
    """The same held-out images through each tokenizer. Each reads them from its own dataset, at its own size."""
    able = [
        name
        for name, one in opened.items()
        if isinstance(one.model, LoadedTokenizer) and one.model.model.can_decode and name in held_out
    ]
    if not able:
        return
    first = held_out[able[0]]
    common = set(first.ids).intersection(*(held_out[name].ids for name in able[1:]))
    if not common:  # then the first run is shown with the runs that have its images
        common = set(first.ids)
    few = first.take([row for row, sample in enumerate(first.ids) if sample in common])
    inputs = few.take(few.choose(opened[able[0]].asked.images, each=1))
    found.inputs = inputs
    for name in able:
        rows = {sample: row for row, sample in enumerate(held_out[name].ids)}
        if any(sample not in rows for sample in inputs.ids):
            found.left_out.append(f'pictures of {name}: its held-out images are others than those of {able[0]}')
            continue
        own = held_out[name].take([rows[sample] for sample in inputs.ids])
        found.runs[name].reconstructions = as_pixels(in_batches(opened[name].model.reconstruct, own.tensor))


def draw_same(found: Compared, opened: Mapping[str, Opened]) -> None:
    """One image of each class from each generator, with the same seed."""
    able = {name: one for name, one in opened.items() if isinstance(one.model, LoadedGenerator)}
    if not able:
        return
    known = min(one.model.task.classes for one in able.values())
    many = next(iter(able.values())).asked.images
    classes = spaced(known, many)
    if known == 0 and any(one.model.task.classes for one in able.values()):
        found.left_out.append('samples of the same class: some of the generators know no classes, so each draws its own')
    labels = names_of(next(iter(able.values())), None)
    found.classes = [name_of(number, labels) for number in classes] if classes else [str(number + 1) for number in range(many)]
    for name, one in able.items():
        own = classes or spaced(one.model.task.classes, many)
        try:
            found.runs[name].drawn = as_pixels(one.model.sample(own or None, len(found.classes), seed=found.seed))
        except UserError as error:
            found.left_out.append(f'samples of {name}: {error.message}')
