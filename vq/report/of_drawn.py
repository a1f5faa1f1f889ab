"""The facts about whatever draws images without tokens, such as diffusion in latents: what the protocol of drawing gives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vq.assembly.counting import count
from vq.core.errors import UserError
from vq.report.facts import Drawn, GeneratorFacts
from vq.report.figures import Reference, Seen
from vq.report.images import as_pixels, spaced
from vq.report.of_generator import CLASSES, EACH, MEASURED_OF_EACH, category_of, names_of
from vq.report.opening import LEARNED, MEASURED, Opened
from vq.report.origin import seconds_of_training
from vq.tasks.loaded import LoadedGenerator

MOST = 200  # images to draw: a step of a denoiser costs as much as a whole image of most generators of tokens


def gather(opened: Opened) -> GeneratorFacts:
    """Samples by class, with figures if there is a classifier. What depends on tokens is left out."""
    loaded: LoadedGenerator = opened.model
    held_out, images = opened.images('validator', MEASURED), opened.images('trainer', LEARNED)
    classes = spaced(loaded.task.classes, CLASSES)
    total = min(max(len(classes), 1) * (EACH if opened.network is None else MEASURED_OF_EACH), max(MOST, len(classes)))
    chosen = [classes[row % len(classes)] for row in range(total)] if classes else None
    drawn: Tensor = loaded.sample(chosen, total, seed=opened.asked.seed)
    asked = torch.tensor(chosen if chosen else [0] * total)
    unseen = None if opened.network is None or held_out is None else Seen(opened.network, held_out.tensor)
    seen = None if opened.network is None else Seen(opened.network, drawn)
    reference, real = None, None
    if images is not None:
        reference = Reference(opened.network, images.tensor, category_of(images), torch.zeros(0, 1))
    results = {} if reference is None else reference.compare(seen, drawn, asked if classes else None, drawn.flatten(1))
    if seen is not None and unseen is not None:
        results['fd_held_out'] = seen.distance(unseen)
    if held_out is not None and reference is not None:
        real = reference.compare(unseen, held_out.tensor, category_of(held_out), held_out.tensor.flatten(1))
    named = None if seen is None or not classes else seen.named.numpy()
    opened.leave_out('nearest training images and completions', UserError('they compare tokens, and this model draws none'))
    return GeneratorFacts(
        journal=opened.origin.journal,
        drawn={'drawn': Drawn(as_pixels(drawn.cpu()), np.asarray(asked), named, results)},
        real=real,
        how=f'{type(loaded.task).__name__} draws images without tokens, with the settings of its config.',
        neighbours=None,
        completions=None,
        parameters=sum(map(count, loaded.task.roots().values())),
        seconds=seconds_of_training(opened.origin.training),
        names=names_of(opened, held_out),
    )
