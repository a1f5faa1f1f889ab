"""The facts about the energies of a denoiser."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import UserError
from vq.core.records import to_uint8
from vq.denoisers.energy import energy_of
from vq.interfaces import FeatureNetwork
from vq.interfaces.conditions import Asked as Requested
from vq.metrics.ranking import auroc
from vq.report.facts import Composition, EnergyFacts
from vq.report.images import Images, as_pixels, as_tensor
from vq.report.letters import letters
from vq.report.opening import Opened, affordable, in_batches
from vq.tasks.diffusion.energies import draw_composed, energies_of_images, energies_on_the_way, share_that_fell
from vq.tasks.diffusion.energy_cost import cost_of_energy
from vq.tasks.diffusion.task import DiffusionTask
from vq.tasks.loaded import LoadedGenerator

DRAWN, JUDGED = 100, 180  # images to draw, images to judge, at most
SHOWN = 20


def gather(opened: Opened, classes: list[int], held_out: Images | None, names: Sequence[str]) -> EnergyFacts | None:
    """None for denoisers without an energy."""
    loaded: LoadedGenerator = opened.model
    task = loaded.task
    energy = energy_of(task.denoiser) if isinstance(task, DiffusionTask) else None
    if energy is None:
        return None

    def one(_: Tensor) -> object:
        return loaded.sample(classes[:1] or None, 1)

    # judging the states on a way costs five times the way itself
    count = affordable(one, torch.zeros(1), opened.asked, max(len(classes), 2), 5 * DRAWN) // 5
    count = min(max(count, len(classes), 2), DRAWN)
    ids = [*range(count)]
    condition = task.condition(Requested(classes or None, None, None), ids, loaded.device)
    way = energies_on_the_way(task, Wanted(ids, opened.asked.seed, condition)).cpu().numpy()
    curve = np.stack([np.quantile(way, 0.25, 1), way.mean(1), np.quantile(way, 0.75, 1)])
    found = EnergyFacts(curve, share_that_fell(torch.from_numpy(way)), count, cost_of_energy(energy, task.space.spec.shape))
    if len(classes) > 1 and task.space.decodes:
        found.composition = composed(loaded, opened.network, classes, names, count, opened.asked.seed)
    if held_out is None:
        opened.leave_out('energies of images', UserError('there are no held-out images'))
        return found
    images = held_out.first(JUDGED)
    others = letters(len(images), (images.pixels.shape[1], images.pixels.shape[2]))
    known, unknown = (
        in_batches(lambda part: energies_of_images(task, part.to(loaded.device)), rows)
        for rows in (images.tensor, as_tensor(others))
    )
    found.likelihood, found.auroc, found.letters = (known.numpy(), unknown.numpy()), auroc(known, unknown), others[:SHOWN]
    return found


def composed(
    loaded: LoadedGenerator, network: FeatureNetwork | None, classes: list[int], names: Sequence[str], count: int, seed: int
) -> Composition:
    """``count`` images of pairs of classes, in turns: the first class with the one half of all classes further, and so on."""
    half = len(classes) // 2
    pairs = [(classes[place], classes[place + half]) for place in range(half)]
    asked = [pairs[row % half] for row in range(count)]
    conditions = [Condition(torch.tensor(side, device=loaded.device)) for side in zip(*asked, strict=True)]
    images = to_uint8(draw_composed(loaded.task, Wanted([*range(count)], seed, None), conditions))
    one, both = (None, None) if network is None else agreement_of_pairs(network, images, torch.tensor(asked))
    known = loaded.task.classes
    chance = 2 / known, 2 / (known * (known - 1))
    named = [(name_of(names, first), name_of(names, second)) for first, second in asked]
    return Composition(as_pixels(images)[:SHOWN], named[:SHOWN], one, both, chance)


def agreement_of_pairs(network: FeatureNetwork, images: Tensor, pairs: Tensor) -> tuple[float, float]:
    """Shares of images (N, 3, H, W) uint8 whose likeliest class is one of their pair (N, 2), and whose two likeliest are the
    pair."""
    logits = network(images).logits
    assert logits is not None
    likeliest, asked = logits.topk(2, dim=1).indices.cpu(), pairs.sort(1).values
    one = (likeliest[:, :1] == asked).any(1)
    both = (likeliest.sort(1).values == asked).all(1)
    return float(one.double().mean()), float(both.double().mean())


def name_of(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)
