"""blr: the rate of a step is blr times its images / 256, and what was said last decides between it and lr."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vq.assembly.compose import compose
from vq.core.errors import ConfigError
from vq.runners.optimizing import Stepped, StepSettings
from vq.strategies.base import BaseStrategy

ENERGY, MAR = 'energy/base_energy_imagenet_ddp.py', 'mar/base_imagenet_ddp.py'
SCALED = {'scale_lr': 'linear', 'base_batch': 256}


def rate_in(config: str, root: str, **options: Any) -> dict[str, Any]:
    found = compose(config, options, {}, tiny=False).trainer.optimizers[root]
    return {name: found[name] for name in ('lr', 'scale_lr', 'base_batch') if name in found}


def test_the_configs_of_the_document_have_its_rule() -> None:
    assert rate_in(ENERGY, 'denoiser') == {'lr': 9e-6, **SCALED}
    assert rate_in(ENERGY, 'denoiser', blr=1e-4) == {'lr': 1e-4, **SCALED}


def test_lr_of_the_command_line_takes_the_place_of_blr_of_a_config() -> None:
    assert rate_in(ENERGY, 'denoiser', lr=3e-4) == {'lr': 3e-4}


def test_blr_of_the_command_line_takes_the_place_of_lr_of_a_config() -> None:
    assert rate_in('mar/digits.py', 'generator') == {'lr': 2e-3}
    assert rate_in('mar/digits.py', 'generator', blr=1e-4) == {'lr': 1e-4, **SCALED}
    assert rate_in(MAR, 'generator') == {'lr': 8e-4}


@pytest.mark.parametrize('config', [ENERGY, MAR])
def test_both_at_once_are_refused(config: str) -> None:
    with pytest.raises(ConfigError, match='the options lr and blr are given'):
        compose(config, dict(lr=1e-3, blr=1e-4), {}, tiny=False)


@pytest.mark.parametrize(('images', 'rate'), [(256, 9e-6), (2048, 7.2e-5), (64, 2.25e-6)])
def test_the_rate_of_a_step(images: int, rate: float) -> None:
    settings = rate_in(ENERGY, 'denoiser')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.pop('lr'))
    Stepped(optimizer, StepSettings(**settings), 10, images, None).set_rates(1, BaseStrategy('cpu'))
    assert optimizer.param_groups[0]['lr'] == pytest.approx(rate)
