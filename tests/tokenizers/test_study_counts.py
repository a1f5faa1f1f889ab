"""The configs of the VQ-VAE/GAN study have exactly the parameter counts of its result tables."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from tests.io.test_published import shapes_of
from tests.shipped import entries
from vq.assembly.compose import compose
from vq.assembly.matching import fit
from vq.io.published import serezd
from vq.registries import VQDiscriminatorRegistry, VQModelRegistry, VQScheduleRegistry

TABLES = {  # millions of parameters that learn, the discriminator's with them
    'vqvae_4096_standard': 36.6,
    'vqvae_4096_reinit_10': 36.6,
    'vqvae_4096_ema': 35.6,
    'vqvae_4096_entropy': 36.6,
    'vqvae_4096_gumbel': 55.4,
    'vqvae_1024_standard': 35.8,
    'vqvae_1024_lpips': 35.8,
    'vqgan_1024_fixed': 64.7,
    'vqgan_1024_adaptive': 64.7,
    'vqgan_1024_fixed_r1': 64.7,
    'vqgan_1024_adaptive_r1': 64.7,
    'vqgan_1024_ema': 64.4,
    'vqgan_1024_entropy': 64.7,
    'vqgan_1024_gumbel': 66.1,
}
LATER = {'vqgan_1024_entropy_later': 71.1, 'vqgan_1024_gumbel_later': 72.5}  # of the project's later README


def model_of(name: str) -> dict:
    return compose(f'configs/vqvae_gan_study/{name}.py', {}, {}, tiny=False).trainer.model


def learning(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)


def test_all_rows_have_a_config() -> None:
    assert {name for name in entries() if name.startswith('vqvae_gan_study/')} == {
        f'vqvae_gan_study/{name}.py' for name in {**TABLES, **LATER}
    }


@pytest.mark.parametrize(('name', 'printed'), {**TABLES, **LATER}.items())
def test_parameters_are_those_of_the_table(name: str, printed: float) -> None:
    model = model_of(name)
    with torch.device('meta'):
        total = learning(VQModelRegistry.build(model.tokenizer))
        if 'discriminator' in model:
            total += learning(VQDiscriminatorRegistry.build(model.discriminator))
    assert round(total / 1e6, 1) == printed, f'{total:,}'


def test_a_codebook_of_running_means_does_not_count() -> None:
    """As in the table: 1.0 million less for 4,096 codes of 256 channels."""
    with torch.device('meta'):
        standard, ema = (VQModelRegistry.build(model_of(f'vqvae_4096_{kind}').tokenizer) for kind in ('standard', 'ema'))
    assert learning(standard) - learning(ema) == 4096 * 256


def their_state(tokenizer: torch.nn.Module, blocks: int) -> dict[str, Tensor]:
    """Our tensors under the names of the project, which numbers levels and changes of resolution consecutively."""
    state = {}
    for key, value in tokenizer.state_dict().items():
        key = re.sub(r'\.levels\.(\d+)\.blocks\.(\d+)\.', lambda at: f'.blocks.{int(at[1]) * (blocks + 1) + int(at[2])}.', key)
        key = re.sub(r'\.levels\.(\d+)\.resample\.', lambda at: f'.blocks.{int(at[1]) * (blocks + 1) + blocks}.', key)
        key = key.replace('encoder.refine', 'encoder.final_residual').replace('decoder.refine', 'decoder.initial_residual')
        key = key.replace('norm_out', 'norm').replace('shortcut', 'conv_shortcut').replace('stem', 'conv_in')
        key = key.replace('quantizer.logits', 'quantizer.x_to_logits')
        key = key.replace('codebook_update.count', 'ema_count').replace('codebook_update.sums', 'ema_weight')
        state[key] = value
    return state


@pytest.mark.slow
@pytest.mark.parametrize('norms', ['theirs', 'torch'])
@pytest.mark.parametrize(
    'name',
    ['vqvae_4096_standard', 'vqvae_4096_ema', 'vqvae_4096_gumbel', 'vqgan_1024_entropy_later', 'vqgan_1024_gumbel_later'],
)
def test_its_checkpoints_convert_to_the_networks_of_the_configs(name: str, norms: str) -> None:
    wanted = model_of(name).tokenizer
    with torch.device('meta'):
        state = their_state(VQModelRegistry.build(wanted), 2)
    if norms == 'theirs':
        state = {
            key: value[None, :, None, None] if re.search(r'\.norm\d?\.(weight|bias)$', key) else value
            for key, value in state.items()
        }
    converted = serezd.convert(state)
    fit(converted.tokenizer, shapes_of(converted), name)
    assert not converted.dropped
    for side in ('encoder', 'decoder'):
        found = converted.tokenizer[side]
        assert found['norm'] == ('group_unbiased' if norms == 'theirs' else 'group')
        differing = {
            key for key, value in wanted[side].items() if key != 'norm' and list_of(found.get(key, None)) != list_of(value)
        }
        assert differing - ({'upsample'} if name.endswith('later') else set()) == set()
    assert converted.tokenizer['quantizer']['codebook_size'] == wanted.quantizer.codebook_size


def list_of(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(('name', 'epochs'), [('vqgan_1024_gumbel', 1), ('vqgan_1024_gumbel_later', 2)])
def test_recipes_end_where_the_study_says(name: str, epochs: int) -> None:
    """Temperature 1 to 1/16, KL weight 0 to 6.6 / 768; an adaptive weight of gain 0.8 relative to the unweighted LPIPS."""
    trainer = compose(f'configs/vqvae_gan_study/{name}.py', {}, {}, tiny=False).trainer
    epoch = 1_281_167 // 256
    assert trainer.iters == 150 * epochs * epoch
    for callback, start, end, length in (
        (trainer.callbacks.temperature, 1.0, 1 / 16, 7.5 * epochs),
        (trainer.callbacks.kl_weight, 0.0, 6.6 / 768, 0.24 * epochs),
    ):
        schedule = VQScheduleRegistry.build(callback.schedule)
        schedule.bind(trainer.iters)
        last = round(length * epoch)
        course = [callback['value'] * schedule(step) for step in (1, last // 2, last, trainer.iters)]
        assert course[0] == pytest.approx(start, abs=2e-6)
        assert course[1] == pytest.approx((start + end) / 2, rel=2e-3)
        assert course[2:] == pytest.approx([end, end])
    lpips = trainer.model.losses.lpips.weight
    assert trainer.model.weight.gain * lpips == pytest.approx(0.8)
    assert trainer.model.weight.gain * trainer.model.weight.limit == pytest.approx(0.8 * 1e4)
