"""``digits_diffusion.py --energy``: what an energy is good for, measured on a trained denoiser of digits.

- fell: the share of new digits whose mean energy is lower at the last step than at the first, and the means of all steps.
- auroc: held-out digits against letters of Pillow's built-in font, by their energy alone.
- both, one: digits drawn by the sum of the energies of two classes; the shares whose two likeliest classes, for the
  classifier, are the two, and whose likeliest class is one of them. With chance, and with the same of digits of one class.
- cost: operations of a training step and of an estimate, in those without an energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from _common import rounded

from vq.core.drawing import Wanted
from vq.data.datasets.digits import DigitsDataset
from vq.denoisers.energy import energy_of
from vq.interfaces import FeatureNetwork
from vq.interfaces.conditions import Asked
from vq.metrics.ranking import auroc
from vq.report.images import as_tensor, read_images
from vq.report.letters import letters
from vq.report.of_energy import agreement_of_pairs, composed
from vq.tasks.diffusion.energies import energies_of_images, energies_on_the_way, share_that_fell
from vq.tasks.diffusion.energy_cost import cost_of_energy
from vq.tasks.loaded import LoadedGenerator

CLASSES, EACH = 10, 10


def energy_figures(loaded: LoadedGenerator, network: FeatureNetwork, each: int, seed: int) -> dict[str, Any]:
    task, count = loaded.task, CLASSES * min(each, EACH)
    ids, classes = [*range(count)], [*range(CLASSES)]
    way = energies_on_the_way(task, Wanted(ids, seed, task.condition(Asked(classes), ids, loaded.device)))
    splits = [read_images(DigitsDataset(split=split, image_size=32)) for split in ('validation', 'test')]
    real = torch.cat([split.tensor for split in splits])
    known, other = (energies_of_images(task, images) for images in (real, as_tensor(letters(len(real), (32, 32)))))
    made = composed(loaded, network, classes, [], count, seed)
    half = CLASSES // 2
    pairs = torch.tensor([(row % half, row % half + half) for row in range(count)])
    alone = agreement_of_pairs(network, loaded.sample([*range(half)], count, seed=seed), pairs)
    step, estimate = cost_of_energy(energy_of(task.denoiser), task.space.spec.shape)
    return {
        'fell': share_that_fell(way),
        'way': [rounded(float(value)) for value in way.mean(1)],
        'auroc': rounded(auroc(known, other)),
        'composition': {'one': made.one, 'both': made.both, 'chance': made.chance, 'one class alone': alone},
        'cost': {'step': rounded(step), 'estimate': rounded(estimate)},
    }


def in_words(found: Mapping[str, Any]) -> str:
    made, cost = found['composition'], found['cost']
    return (
        f'{100 * found["fell"]:.1f} % fell; AUROC {found["auroc"]:.3f}; two classes: {100 * made["both"]:.1f} % both '
        f'(chance {100 * made["chance"][1]:.1f}, one class alone {100 * made["one class alone"][1]:.1f}), '
        f'{100 * made["one"]:.1f} % one of them; operations of a step {cost["step"]:.2f}, '
        f'of an estimate {cost["estimate"]:.2f}'
    )
