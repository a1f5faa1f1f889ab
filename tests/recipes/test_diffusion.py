"""Options of diffusion: each combination that shipped configs try builds and trains a step; wrong ones are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.shipped import OPTIONS
from vq.assembly.compose import checked, compose
from vq.core.errors import ConfigError
from vq.core.random import key_of
from vq.core.records import Batch
from vq.registries import VQTaskRegistry

CONFIG = 'configs/diffusion/interface.py'
# connectors need latents of another shape, and a UNet with a SpatialTransformer a conditioner of sequences (test_unet.py)
BUILT = [options for options in OPTIONS['diffusion/interface.py'] if not {'connector', 'denoiser'} & options.keys()]
CHAIN = {'type': 'Chain', 'maps': [{'type': 'SpaceToDepth', 'factor': 2}, {'type': 'Affine', 'deviation': 2.0}]}


@pytest.mark.slow
@pytest.mark.parametrize('options', [*BUILT, {'pixels': True, 'patch': 4, 'bottleneck': 16}, {'connector': CHAIN}], ids=str)
def test_options_make_a_task_that_learns(options: dict[str, Any]) -> None:
    config = compose(CONFIG, options, {}, tiny=True)
    torch.manual_seed(0)
    task = VQTaskRegistry.build(checked(config, 'trainer')['model'], 'model').train()
    ids = ['a/0', 'a/1']
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    batch = Batch(image, ids, torch.tensor([*map(key_of, ids)]), torch.tensor([3, 8]))
    ((name, losses),) = task.training_step(batch, task.roots(), 1)
    losses.total.backward()
    assert name == 'denoiser' and losses.total.isfinite()
    assert ('bound' in losses.values) == bool(options.get('learned_variance'))
    assert ('alignment' in losses.values) == ('align_block' in options) and (task.guide is None) == (
        'guide_config' not in options
    )
    grads = {part.split('.')[0] for part, value in task.named_parameters() if value.grad is not None}
    assert grads == {'denoiser', 'conditioner', 'losses'} - (set() if 'align_block' in options else {'losses'})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'learned_variance': True}, 'only path=beta has one'),
        ({'form': 'wide_head', 'path': 'beta'}, 'is told the time itself'),
        ({'guide': 'nowhere'}, "guide: there is no run, checkpoint or file 'nowhere'"),
        ({'path': 'straight'}, "the option path is 'straight'"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(CONFIG, options, {}, tiny=True)
