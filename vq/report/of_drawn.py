"""The facts about whatever draws images without tokens, such as diffusion in latents: what the protocol of drawing gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vq.assembly.counting import count
from vq.core.errors import UserError
from vq.core.records import to_uint8
from vq.report import of_energy
from vq.report.facts import Drawn, GeneratorFacts, Pixels
from vq.report.figures import Reference, Seen
from vq.report.images import as_pixels, spaced
from vq.report.of_generator import CLASSES, EACH, category_of, names_of
from vq.report.opening import LEARNED, MEASURED, Opened, affordable
from vq.report.origin import seconds_of_training
from vq.tasks.loaded import LoadedGenerator

MEASURED_OF_EACH = 30  # images of each class if a classifier measures them: a step of a denoiser costs a whole pass
LOSSES = ('denoising', 'distance')  # of denoisers and heads of diffusion; of descents of an energy
STATES = 8  # on the way from noise to an image


def gather(opened: Opened) -> GeneratorFacts:
    """Samples by class, with figures if there is a classifier. What depends on tokens is left out."""
    loaded: LoadedGenerator = opened.model
    held_out, images = opened.images('validator', MEASURED), opened.images('trainer', LEARNED)
    classes, nothing = spaced(loaded.task.classes, CLASSES), torch.zeros(0, 1)
    if images is None:
        reference = Reference(None, torch.zeros(0, 3, 1, 1, dtype=torch.uint8), None, nothing)
    else:
        reference = Reference(opened.network, images.tensor, category_of(images), nothing)
    unseen = None if opened.network is None or held_out is None else Seen(opened.network, held_out.tensor)
    real = None
    if held_out is not None and images is not None:
        real = reference.compare(unseen, held_out.tensor, category_of(held_out), held_out.tensor.flatten(1))
    opened.leave_out('nearest training images and completions', UserError('they compare tokens, and this model draws none'))
    return GeneratorFacts(
        journal=opened.origin.journal,
        drawn=draw_all(opened, classes, reference, unseen),
        real=real,
        how=f'{type(loaded.task).__name__} draws images without tokens. {in_words(opened)}',
        neighbours=None,
        completions=None,
        parameters=sum(map(count, loaded.task.roots().values())),
        seconds=seconds_of_training(opened.origin.training),
        names=names_of(opened, held_out),
        tokens=False,
        loss=(loss_of(opened), 'mean squared error'),
        history=history_of(opened, classes),
        energy=of_energy.gather(opened, classes, held_out, names_of(opened, held_out)),
    )


def draw_all(opened: Opened, classes: list[int], reference: Reference, unseen: Seen | None) -> dict[str, Drawn]:
    """The images of every way of drawing: as the config says and, if that is guided, without guidance."""
    loaded: LoadedGenerator = opened.model
    least = max(len(classes), 1)
    wanted = least * (EACH if opened.network is None else MEASURED_OF_EACH)

    def one(_: Tensor) -> object:
        return loaded.sample(classes[:1] or None, 1)

    total = affordable(one, torch.zeros(1), opened.asked, least, wanted)
    chosen = [classes[row % len(classes)] for row in range(total)] if classes else None
    asked = torch.tensor(chosen or [0] * total)
    guided = bool(classes) and scale_of(loaded) != 1
    ways: dict[str, dict[str, Any]] = {'guided': {}, 'unguided': {'guidance': 1.0}} if guided else {'drawn': {}}
    found = {}
    for name, how in ways.items():
        made: Tensor = loaded.sample(chosen, total, seed=opened.asked.seed, **how).cpu()
        seen = None if opened.network is None else Seen(opened.network, made)
        results = reference.compare(seen, made, asked if classes else None, made.flatten(1))
        if seen is not None and unseen is not None:
            results['fd_held_out'] = seen.distance(unseen)
        named = None if seen is None or not classes else seen.named.cpu().numpy()
        found[name] = Drawn(as_pixels(made), np.asarray(asked), named, results)
    return found


def history_of(opened: Opened, classes: list[int]) -> Pixels | None:
    """(K, N, H, W, 3): states on the way to the first image of each class; None if the task records none."""
    loaded: LoadedGenerator = opened.model
    if not hasattr(getattr(loaded.task, 'drawn_by', None), 'history'):
        return None
    states: list[list[Tensor]] = []
    for drawn in loaded.draw(classes or None, max(len(classes), 1), seed=opened.asked.seed, history=STATES):
        states.append([to_uint8(state).cpu() for state in drawn.history])
    if not states or not states[0]:
        return None
    return np.stack([as_pixels(torch.cat(parts)) for parts in zip(*states, strict=True)])


def loss_of(opened: Opened) -> str:
    """The first of the errors that models of this kind learn by which the journal has."""
    known = {name for line in opened.origin.journal or () for name in line}
    return next((name for name in LOSSES if name in known), LOSSES[0])


def scale_of(loaded: LoadedGenerator) -> float:
    """The guidance of the config; 1 is no guidance."""
    guidance = getattr(getattr(loaded.task, 'drawn_by', loaded.task), 'guidance', None)
    return float(getattr(guidance, 'keywords', {}).get('scale', 1.0))


def in_words(opened: Opened) -> str:
    """The settings of drawing in the config of the run, as a sentence."""
    described, scale = opened.run.model.get('sampler'), scale_of(opened.model)
    guided = f'guidance {scale:g}{"" if scale == 1 else " (1 is no guidance)"}'
    if not isinstance(described, dict) or 'type' not in described:
        return f'The config sets {guided}.'
    name, steps = str(described['type']).rpartition('.')[2], described.get('steps')
    counted = 'num_iter' in getattr(getattr(opened.model.task, 'generator', None), 'takes', ())
    turns = f', {opened.run.model.get("num_iter")} iterations' if counted else ''
    return f'The config sets {name}{"" if steps is None else f" with {steps} steps"}{turns}, and {guided}.'
