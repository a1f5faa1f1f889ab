"""Generators of tokens with an alignment loss: which hidden vector meets which patch of the teacher."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.losses.test_alignment import TEACHER
from tests.tasks.test_sequence_modeling import batch, task
from vq.core.errors import UserError
from vq.core.records import to_float
from vq.losses.alignment import AlignmentLoss
from vq.losses.smooth_l1 import SmoothL1Loss
from vq.registries import VQTeacherRegistry

PLACE = 'generator.network.blocks.0'


def aligned(masked: bool) -> Any:
    loss = AlignmentLoss(VQTeacherRegistry.build(TEACHER, 'teacher'), 16, SmoothL1Loss(), PLACE, weight=0.5)
    return task('masked' if masked else 'autoregressive', losses={'align': loss})


@pytest.mark.slow
@pytest.mark.parametrize('masked', [False, True])
def test_each_cell_meets_its_patch(masked: bool) -> None:
    """Cell by cell: causal networks predict token t at position t; masked ones have a position for the class before them."""
    model, seen = aligned(masked).train(), batch()
    kept: dict[str, Tensor] = {}
    hook = model.get_submodule(PLACE).register_forward_hook(lambda *found: kept.update(hidden=found[2]))
    ((_, losses),) = model.training_step(seen, model.roots(), 1)
    hook.remove()
    loss = model.losses['align']
    image = F.interpolate(to_float(seen.image), (56, 56), mode='bicubic', antialias=True).clamp(-1, 1)
    goal = loss.teacher.features(image).patches
    assert kept['hidden'].shape == (3, 16 + masked, 16) and goal.shape == (3, 16, 4, 4)
    distances = []
    for row in range(4):
        for column in range(4):
            vector = kept['hidden'][:, 4 * row + column + masked]
            projected = vector @ loss.head.weight[:, :, 0, 0].T + loss.head.bias
            standard = F.layer_norm(goal[:, :, row, column], (16,))
            distances.append(F.smooth_l1_loss(projected, standard))
    torch.testing.assert_close(losses.values['align'], torch.stack(distances).mean())
    torch.testing.assert_close(losses.total, losses.values['cross_entropy'] + 0.5 * losses.values['align'])
    losses.values['align'].backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    assert 'losses.align.head.weight' in reached and any(name.startswith(f'{PLACE}.') for name in reached)
    assert not any(name.startswith(('generator.network.blocks.1', 'generator.network.norm', 'tokenizer')) for name in reached)


def test_images_are_needed_for_training_alone() -> None:
    model, without = aligned(False), dataclasses.replace(batch(), image=None)
    with pytest.raises(UserError, match='images are needed here'):
        next(model.train().training_step(without, model.roots(), 1))
    model.eval()
    assert 'align' not in model.validation_step(without).losses and 'align' in model.validation_step(batch()).losses
