"""The facts about a tokenizer: what it makes of held-out images, measured beside k-means, and its codebook."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vq.assembly.counting import count
from vq.loading import LoadedTokenizer
from vq.report import codebook, figures
from vq.report.baseline import PatchKMeans
from vq.report.facts import Results, Samples, TokenizerFacts
from vq.report.figures import Seen, Sizes
from vq.report.images import Images, as_pixels, as_tensor
from vq.report.opening import LEARNED, MEASURED, Opened, affordable, in_batches, sizes_of
from vq.report.origin import results_of, seconds_of_training


def gather(opened: Opened) -> TokenizerFacts:
    tokenizer: LoadedTokenizer = opened.model
    held_out = opened.images('validator', MEASURED)
    train = None if tokenizer.continuous else opened.images('trainer', LEARNED)
    if not tokenizer.model.can_decode:
        opened.leave_out('reconstructions', f'{type(tokenizer.model).__name__} makes no pixels')
    sizes: Sizes = 0 if tokenizer.continuous else sizes_of(tokenizer.model)
    tokens = 0 if tokenizer.continuous else math.prod(tokenizer.token_shape)
    facts = TokenizerFacts(
        validations=validations_of(opened),
        held_out={},
        classifier=opened.classifier,
        samples=None,
        counts={},
        codes=int(tokenizer.codebook_size),
        code_pictures=None,
        baseline_pictures=None,
        train_images=0 if train is None else train.total,
        parameters=count(tokenizer.model),
        image_size=tokenizer.image_size,
        bits=bits_of(tokenizer, sizes),
        tokens=tokens,
        seconds=seconds_of_training(opened.origin.training),
        chosen='At the last checkpoint.',
        codebooks=1 if isinstance(sizes, int) else len(sizes),
    )
    some = held_out if held_out is not None else train
    if some is None:
        show_decoded(opened, facts)
        return facts
    able = affordable(passing(tokenizer), some.tensor[:1], opened.asked, opened.asked.images, MEASURED + LEARNED)
    kmeans = baseline_for(opened, train, tokens, sizes)
    if held_out is not None:
        held_out = held_out.first(min(able, MEASURED))
        measure(opened, facts, held_out, kmeans, sizes)
    if train is not None and not tokenizer.continuous:
        learned = able - (0 if held_out is None else len(held_out))
        show_codebook(opened, facts, train.first(max(able // 2, learned)), sizes)
    facts.baseline_pictures = None if kmeans is None else kmeans.patches
    return facts


def passing(tokenizer: LoadedTokenizer) -> Any:
    """What is done to each held-out image."""
    return tokenizer.reconstruct if tokenizer.model.can_decode else tokenizer.tokenize


def validations_of(opened: Opened) -> list[tuple[int, Results]]:
    """(step, results) of evaluations during training, and of ``vq.val``, in order of step."""
    found = {int(line['step']): line for line in opened.origin.journal if line['kind'] == 'eval'}
    if opened.run.folder is not None:
        places = ((place, results) for place, results, _ in results_of(opened.run.folder) if place.startswith('iter_'))
        found |= {int(place.removeprefix('iter_')): dict(results) for place, results in places}
    return sorted(found.items())


def bits_of(tokenizer: LoadedTokenizer, sizes: Sizes) -> float:
    """Bits of a token; the mean over codebooks."""
    if not sizes:
        return 0.0
    return math.log2(sizes) if isinstance(sizes, int) else float(np.mean([math.log2(size) for size in sizes]))


def baseline_for(opened: Opened, train: Images | None, tokens: int, sizes: Sizes) -> PatchKMeans | None:
    """k-means with the same tokens and codes. None, and a line on the page, if there is none to compare with."""
    if opened.model.continuous or not opened.model.model.can_decode:
        return None
    codes = math.prod([sizes] if isinstance(sizes, int) else sizes)  # of several codebooks: as many as combinations
    if train is None:
        kmeans, why = None, 'it is fitted to the training images'
    else:
        cells = tokens if isinstance(sizes, int) else tokens // len(sizes)
        kmeans, why = codebook.fit_baseline(train.pixels, codes, cells, opened.asked.seed)
    if kmeans is None:
        opened.leave_out('k-means on raw patches', why)
    else:
        opened.origin.machine = [*opened.origin.machine, ('k-means, seconds', f'{kmeans.seconds:.1f}')]
    return kmeans


def measure(opened: Opened, facts: TokenizerFacts, held_out: Images, kmeans: PatchKMeans | None, sizes: Sizes) -> None:
    """Reconstruct held-out images, measure them beside the baseline, and choose some to show."""
    tokenizer: LoadedTokenizer = opened.model
    images, tokens, latents, made = held_out.tensor, None, None, None
    if tokenizer.continuous:
        latents = in_batches(tokenizer.encode, images)
        made = in_batches(tokenizer.decode, latents) if tokenizer.model.can_decode else None
    else:
        tokens = in_batches(tokenizer.tokenize, images)
        made = in_batches(tokenizer.detokenize, tokens) if tokenizer.model.can_decode else None
        named = figures.count_codes(tokens.numpy(), sizes).items()
        facts.counts |= {', '.join(filter(None, (held_out.split, name))): counts for name, counts in named}
    coarse = None if kmeans is None or made is None else kmeans.detokenize(kmeans.tokenize(held_out.pixels))
    if made is not None:
        ours, other = compare(opened, held_out, made, tokens, coarse, kmeans, sizes)
        facts.held_out = {held_out.split: (ours, other)}
    rows = held_out.choose(opened.asked.images)
    facts.samples = Samples(
        categories=[held_out.name_of(row) for row in rows],
        ids=[held_out.ids[row] for row in rows],
        images=held_out.pixels[rows],
        reconstructions=None if made is None else as_pixels(made[rows]),
        baseline=None if coarse is None else coarse[rows],
        tokens=None if tokens is None else tokens[rows].numpy(),
        latents=None if latents is None else latents[rows].numpy(),
    )
    how = 'The first of each class' if held_out.category is not None else 'Evenly spaced in the split'
    facts.chosen = f'{how}, without selection, at the last checkpoint.'


def compare(
    opened: Opened,
    held_out: Images,
    made: Tensor,
    tokens: Tensor | None,
    coarse: np.ndarray | None,
    kmeans: PatchKMeans | None,
    sizes: Sizes,
) -> tuple[Results, Results | None]:
    """(tokenizer, baseline): metrics of reconstructions of the same images, with those that use a classifier."""
    metrics, others = figures.metrics_of(opened.run.config, opened.model.continuous)
    if others:
        opened.leave_out(f'measuring {", ".join(others)}', 'these need a network of their own; vq val measures them')
    tokens_of = None if tokens is None else tokens.numpy()
    ours = figures.measure(metrics, held_out.ids, held_out.pixels, as_pixels(made), tokens_of, sizes)
    other = None
    if coarse is not None and kmeans is not None:
        found = kmeans.tokenize(held_out.pixels)
        other = figures.measure(metrics, held_out.ids, held_out.pixels, coarse, found, len(kmeans.centres))
    if opened.network is not None:
        category = None if held_out.category is None else torch.from_numpy(held_out.category)
        real = Seen(opened.network, held_out.tensor)
        ours |= Seen(opened.network, made).compare(real, category)
        if other is not None and coarse is not None:
            other |= Seen(opened.network, as_tensor(coarse)).compare(real, category)
    return ours, other


def show_codebook(opened: Opened, facts: TokenizerFacts, train: Images, sizes: Sizes) -> None:
    """Uses of codes by training images, and the codes as pictures."""
    tokens = in_batches(opened.model.tokenize, train.tensor).numpy()
    split = train.split if len(train) == train.total else f'{len(train):,} images of {train.split}'
    named = figures.count_codes(tokens, sizes).items()
    facts.counts = {', '.join(filter(None, (split, name))): counts for name, counts in named} | facts.counts
    patch = codebook.patch_for(train.pixels.shape[1], facts.tokens)
    if tokens.ndim != 3 or not isinstance(sizes, int) or patch is None:
        opened.leave_out('pictures of codes', f'tokens of the shape {tokens.shape[1:]} are no map with one code in a cell')
        return
    counts = next(iter(facts.counts.values()))
    facts.shown_codes = codebook.most_used(counts)
    means = codebook.mean_patches(train.pixels, tokens, sizes)
    facts.code_pictures = means[facts.shown_codes] if facts.shown_codes else means
    show_decoded(opened, facts)


def show_decoded(opened: Opened, facts: TokenizerFacts) -> None:
    """Each code alone, decoded: this needs no images."""
    tokenizer: LoadedTokenizer = opened.model
    shape = () if tokenizer.continuous else tokenizer.token_shape
    if len(shape) != 2 or not tokenizer.model.can_decode or tokenizer.model.codebook_sizes:
        return
    codes = facts.shown_codes or list(range(min(facts.codes, codebook.MOST)))
    one = torch.zeros(1, *shape, dtype=torch.int64)
    if affordable(tokenizer.detokenize, one, opened.asked, 0, len(codes)) < len(codes):
        return
    facts.decoded = codebook.decode_alone(tokenizer.detokenize, codes, (shape[0], shape[1]), tokenizer.image_size // shape[0])


def sentence(facts: TokenizerFacts) -> str:
    """The result in a line, for a terminal."""
    if not facts.held_out:
        return 'There are no held-out images, so nothing was measured.'
    split, (ours, other) = next(iter(facts.held_out.items()))
    beside = '' if other is None else f' (k-means on raw patches: {other["psnr"]:.2f} dB)'
    used = f', codebook usage {100 * ours["codebook_usage"]:.1f} %' if 'codebook_usage' in ours else ''
    return f'PSNR {ours["psnr"]:.2f} dB{beside}{used}, on {ours["samples"]} images of {split}.'
