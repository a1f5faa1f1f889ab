"""The facts about a generator: what it draws, with and without guidance, and how near that is to the training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.assembly.counting import count
from vq.core.errors import RunFailure, UserError
from vq.interfaces import Dataset, FeatureNetwork
from vq.io.shards import ShardSet
from vq.metrics.likeness import nearest_by_tokens
from vq.report.facts import Completions, Drawn, GeneratorFacts, Neighbours, Pixels, Results
from vq.report.figures import BATCH, Reference, Seen, count_codes
from vq.report.images import Images, as_pixels, read_images, spaced
from vq.report.opening import LEARNED, MEASURED, WORK, Opened, in_batches, sizes_of
from vq.report.origin import seconds_of_training
from vq.tasks.loaded import LoadedGenerator
from vq.tasks.sequence_modeling.task import first_half

NEAREST = 3  # training images to show next to a new image
CLOSEST = 5  # new images to show with the largest share of tokens of a training image
CLASSES, EACH = 10, 10  # classes to show, images of each
MEASURED_OF_EACH = 50  # images of each class if a classifier measures them
COMPLETED = 100  # held-out images to complete if a classifier measures them
KNOWN = 50_000  # rows of token shards to compare with, at most


def gather(opened: Opened) -> GeneratorFacts:
    loaded: LoadedGenerator = opened.model
    held_out, network = opened.images('validator', MEASURED), opened.network
    names = names_of(opened, held_out)
    learned, tokens, images = training_tokens(opened)
    reference = Reference(network, images.tensor, category_of(images), tokens) if images is not None else None
    if reference is None:
        reference = Reference(None, torch.zeros(0, 3, 1, 1, dtype=torch.uint8), None, tokens)
    unseen = None if network is None or held_out is None else Seen(network, held_out.tensor)
    drawn, grids = draw_all(opened, reference, unseen)
    real, others = None, {}
    if held_out is not None:
        real = reference.compare(unseen, held_out.tensor, category_of(held_out), tokenize(loaded, held_out.tensor))
        if unseen is not None:
            others['random codes'] = of_random_codes(
                loaded, network, reference, unseen, len(next(iter(drawn.values())).images)
            )
    sizes = sizes_of(loaded.tokenizer)
    counts = {
        ', '.join(filter(None, ('new images', name))): found for name, found in count_codes(grids.numpy(), sizes).items()
    }
    if len(tokens):
        found = count_codes(tokens.numpy(), sizes).items()
        counts |= {', '.join(filter(None, ('training images', name))): uses for name, uses in found}
    return GeneratorFacts(
        journal=opened.origin.journal,
        drawn=drawn,
        real=real,
        how=f'The generator ({type(loaded.generator).__name__}) draws tokens, and the decoder of its tokenizer makes pixels. '
        f'{in_words(loaded)}',
        neighbours=None
        if learned is None or not len(tokens)
        else neighbours_of(next(iter(drawn.values())), grids, learned, tokens, names=names),
        completions=completions_of(opened, held_out, names),
        parameters=count(loaded.generator),
        seconds=seconds_of_training(opened.origin.training),
        names=names,
        counts=counts,
        others=others,
    )


def names_of(opened: Opened, held_out: Images | None) -> Sequence[str]:
    """The names of classes: those of the dataset, or else those that the run recorded."""
    if held_out is not None and held_out.names:
        return held_out.names
    recorded = getattr(opened.run.spec, 'categories', None) or opened.run.spec.trained_on.get('names')
    return [str(name) for name in recorded] if isinstance(recorded, list | tuple) else []


def category_of(images: Images) -> Tensor | None:
    return None if images.category is None else torch.from_numpy(images.category)


def tokenize(loaded: LoadedGenerator, images: Tensor) -> Tensor:
    """uint8 images -> tokens on the CPU."""
    from vq.core.records import to_float

    return in_batches(lambda part: loaded.tokenizer.tokenize(to_float(part.to(loaded.device))), images)


class Learned:
    """The training images by rows of their tokens. Images are read when they are shown."""

    def __init__(self, dataset: Dataset, ids: Sequence[str]) -> None:
        self.dataset, self.ids = dataset, list(ids)
        self._place: dict[str, int] | None = None

    def id_of(self, row: int) -> str:
        return self.ids[row]

    def read(self, rows: Sequence[int]) -> Pixels:
        from vq.core.random import python_stream

        if self._place is None:
            self._place = {self.dataset.id_of(index): index for index in range(len(self.dataset))}
        stream = python_stream('demo')
        return np.stack([self.dataset.load(self._place[self.ids[row]], stream)['image'] for row in rows])


def training_tokens(opened: Opened) -> tuple[Learned | None, Tensor, Images | None]:
    """The training images to look up, tokens of theirs (M, *tokens.shape), and images to measure if there is a classifier."""
    loaded: LoadedGenerator = opened.model
    shape = loaded.generator.tokens.shape
    nothing, dataset = torch.zeros(0, *shape, dtype=torch.int64), opened.split('trainer')
    images = None
    if dataset is not None:
        able = able_to(opened, 2.0 * count(loaded.tokenizer) * 64)  # of a convolution: many uses of each parameter
        try:
            images = read_images(dataset, min(LEARNED, max(able, opened.asked.images)), opened.run.spec.image)
        except (UserError, OSError) as error:
            opened.leave_out('training images', error if isinstance(error, UserError) else str(error))
    place = None if opened.run.folder is None else opened.run.folder / 'tokens/train/tokens'
    if place is not None and place.is_dir():
        try:
            shards = ShardSet(place)
            rows = spaced(len(shards), KNOWN)
            ids = list(shards.ids())
            found = torch.from_numpy(shards.column('tokens')[rows][:, 0].astype(np.int64))
            if tuple(found.shape[1:]) == shape:
                known = None if dataset is None else Learned(dataset, [ids[row] for row in rows])
                return known, found, images
        except (UserError, OSError, KeyError) as error:
            opened.leave_out('the tokens that the run wrote', error if isinstance(error, UserError) else str(error))
    if images is None or dataset is None:
        return None, nothing, None
    return Learned(dataset, images.ids), tokenize(loaded, images.tensor), images


def able_to(opened: Opened, operations: float) -> int:
    """How many times the device can do ``operations`` within the time of a report."""
    return int(WORK.get(torch.device(opened.asked.device).type, WORK['cpu']) / max(operations, 1))


def classes_of(loaded: LoadedGenerator) -> list[int]:
    """The classes to draw; [] for an unconditional generator."""
    return spaced(loaded.generator.classes, CLASSES)


def draw_all(opened: Opened, reference: Reference, unseen: Seen | None) -> tuple[dict[str, Drawn], Tensor]:
    """The images of every way of drawing, and the tokens of the first."""
    loaded: LoadedGenerator = opened.model
    classes, tokens = classes_of(loaded), loaded.generator.tokens.count
    wanted = max(len(classes), 1) * (MEASURED_OF_EACH if opened.network is not None else EACH)
    able = able_to(opened, 8.0 * count(loaded.generator) * tokens + 2.0 * count(loaded.tokenizer) * 64)
    total = max(min(wanted, able), max(len(classes), 1), min(opened.asked.images, CLASSES))
    scale = scale_of(loaded)
    ways: dict[str, dict[str, float]] = {'guided': {}, 'unguided': {'guidance': 1.0}}
    if not classes or scale == 1:
        ways = {'drawn': {}}
    drawn, first = {}, None
    for name, how in ways.items():
        grids = draw(loaded, classes, total, opened.asked.seed, **how)
        first = grids if first is None else first
        images = in_batches(loaded.detokenize, grids)
        asked = torch.tensor([classes[row % len(classes)] if classes else 0 for row in range(total)])
        seen = None if opened.network is None else Seen(opened.network, images)
        results = reference.compare(seen, images, asked if classes else None, grids)
        if seen is not None and unseen is not None:
            results['fd_held_out'] = seen.distance(unseen)
        named = seen.named.numpy() if seen is not None and classes else None
        drawn[name] = Drawn(as_pixels(images), asked.numpy(), named, results)
    assert first is not None
    return drawn, first


def draw(loaded: LoadedGenerator, classes: Sequence[int], total: int, seed: int, **how: float) -> Tensor:
    """Tokens (total, *tokens.shape): image i is of class i mod n, whatever the batch size."""
    parts = []
    for start in range(0, total, BATCH):
        chosen = [classes[row % len(classes)] for row in range(start, min(start + BATCH, total))] if classes else None
        number = min(BATCH, total - start)
        # one seed per part: the random numbers of an image depend on the seed and its row in the call
        parts.append(loaded.sample_tokens(chosen, number, seed=seed + start, **how).cpu())  # type: ignore[arg-type]
    return torch.cat(parts)


def of_random_codes(
    loaded: LoadedGenerator, network: FeatureNetwork | None, reference: Reference, unseen: Seen, total: int
) -> Results:
    """Figures of the decoder on uniformly random codes: what a generator that learned nothing would draw."""
    sizes, shape = sizes_of(loaded.tokenizer), loaded.generator.tokens.shape
    stream = torch.Generator().manual_seed(0)
    each = [sizes] if isinstance(sizes, int) else list(sizes)
    parts = [
        torch.randint(size, (total, *(shape if isinstance(sizes, int) else shape[:-1])), generator=stream) for size in each
    ]
    tokens = parts[0] if isinstance(sizes, int) else torch.stack(parts, -1)
    images = in_batches(loaded.detokenize, tokens)
    assert network is not None
    seen = Seen(network, images)
    return {**reference.compare(seen, images, None, tokens), 'fd_held_out': seen.distance(unseen)}


def scale_of(loaded: LoadedGenerator) -> float:
    """The guidance of the config; 1 is no guidance."""
    guidance = loaded.task.guidance
    return float(getattr(guidance, 'keywords', {}).get('scale', getattr(guidance, 'scale', 1.0)))


def in_words(loaded: LoadedGenerator) -> str:
    """A sentence on the sampling settings in the config of the run."""
    temperature = getattr(loaded.task.sampler, 'keywords', {}).get('temperature', 1.0)
    return f'The config sets temperature {temperature:g} and guidance {scale_of(loaded):g} (1 is no guidance).'


def neighbours_of(
    drawn: Drawn, grids: Tensor, learned: Any, tokens: Tensor, closest: int = CLOSEST, names: Sequence[str] = ()
) -> Neighbours:
    """The first image of each class and the ``closest`` to any training image, each with its nearest training images.

    ``learned`` gives ids and images by rows of ``tokens``: ``id_of(row)`` and ``read(rows)``.
    """
    shares, rows = nearest_of_many(grids, tokens, NEAREST)
    first = first_of_each(drawn.asked)
    by_share = shares[:, 0].argsort(descending=True, stable=True).tolist()
    chosen = [*first, *[index for index in by_share if index not in first][:closest]]
    near = rows[chosen]  # (n, k)
    images = learned.read(near.flatten().tolist())
    return Neighbours(
        categories=[name_of(int(drawn.asked[index]), names) for index in chosen],
        images=drawn.images[chosen],
        training=images.reshape(*near.shape, *images.shape[1:]),
        ids=[[learned.id_of(index) for index in found] for found in near.tolist()],
        shares=shares[chosen].numpy(),
    )


def name_of(category: int, names: Sequence[str]) -> str:
    return names[category] if category < len(names) else str(category)


def nearest_of_many(grids: Tensor, tokens: Tensor, number: int, part: int = 5000) -> tuple[Tensor, Tensor]:
    """``nearest_by_tokens`` in parts of the others, for memory: shares and rows (N, number), ties to the lower row."""
    shares, rows = [], []
    for start in range(0, len(tokens), part):
        share, row = nearest_by_tokens(grids, tokens[start : start + part], number)
        shares.append(share)
        rows.append(row + start)
    share, row = torch.cat(shares, 1), torch.cat(rows, 1)
    order = share.argsort(dim=1, descending=True, stable=True)[:, :number]
    return share.gather(1, order), row.gather(1, order)


def completions_of(opened: Opened, held_out: Images | None, names: Sequence[str]) -> Completions | None:
    """Held-out images, their second half drawn again; None if there are none, or tokens have no two dimensions."""
    loaded: LoadedGenerator = opened.model
    if held_out is None:
        return None
    if len(loaded.generator.tokens.shape) < 2:
        opened.leave_out('completions', 'the tokens of an image are no map, which has no half')
        return None
    if loaded.generator.classes and held_out.category is None:
        opened.leave_out('completions', 'the held-out images have no classes')
        return None
    few = min(COMPLETED if opened.network is not None else CLASSES, len(held_out))
    some = held_out.take(held_out.choose(few, each=1) if opened.network is None else spaced(len(held_out), few))
    tokens = tokenize(loaded, some.tensor)
    category = torch.from_numpy(some.category) if some.category is not None else torch.zeros(len(some), dtype=torch.int64)
    return complete(loaded, opened.network, some.ids, category, tokens, opened.asked.seed, names)


def complete(
    loaded: LoadedGenerator,
    network: FeatureNetwork | None,
    ids: Sequence[str],
    category: Tensor,
    tokens: Tensor,
    seed: int,
    names: Sequence[str] = (),
) -> Completions:
    """Resample the second half of every image of a split, and twice for the first image of each class."""
    keep = first_half(tuple(tokens.shape[1:]), torch.device('cpu'))
    shown = first_of_each(category.numpy()) if len(torch.unique(category)) > 1 else list(range(min(len(ids), CLASSES)))
    made = loaded.sample_tokens(category.tolist(), given=tokens, keep=keep, seed=seed).cpu()
    again = loaded.sample_tokens(category[shown].tolist(), given=tokens[shown], keep=keep, seed=seed + 1).cpu()
    for found, wanted in ((made, tokens), (again, tokens[shown])):
        check_kept(found, wanted, keep)
    pictures = in_batches(loaded.detokenize, made)
    agreement = None
    if network is not None:
        named = Seen(network, pictures).named
        agreement = float((named == category).double().mean())
    both = torch.stack([pictures[shown], in_batches(loaded.detokenize, again)], 1)  # (n, 2, 3, H, W)
    kept = keep if keep.ndim == 2 else keep.flatten(2)[..., 0]
    return Completions(
        categories=[name_of(int(number), names) if loaded.generator.classes else '' for number in category[shown]],
        ids=[ids[index] for index in shown],
        images=as_pixels(in_batches(loaded.detokenize, tokens[shown])),
        kept=kept.numpy(),
        made=both.permute(0, 1, 3, 4, 2).numpy(),
        tokens_kept=int(keep.sum()) * len(tokens),
        completed=len(tokens),
        agreement=agreement,
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


def sentence(facts: GeneratorFacts) -> str:
    """The result in a line, for a terminal."""
    name, drawn = next(iter(facts.drawn.items()))
    found: Mapping[str, Any] = drawn.results
    said = [f'{found["samples"]} images ({name})']
    if 'agreement' in found:
        said.append(f'{100 * found["agreement"]:.1f} % of the requested class')
    if 'fd_held_out' in found:
        said.append(f'FD to held-out images {found["fd_held_out"]:.2f}')
    if 'share_most' in found:
        said.append(f'at most {100 * found["share_most"]:.0f} % of the tokens of a training image')
    return f'{", ".join(said)}.'
