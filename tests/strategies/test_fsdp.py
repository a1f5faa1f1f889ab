"""FSDP2 on gloo ranks: the same training as DDP, in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import GlooPool
from tests.runners.support import assert_same
from tests.strategies.fsdp_runs import (
    fail_on_one_rank,
    norm_and_refusal,
    scale_gradients,
    train_gan,
    write_fsdp_config,
)
from vq.core.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> str:
    write_fsdp_config(tmp_path)
    return str(tmp_path)


def assert_close(
    found: dict[str, Any], expected: dict[str, Any], rtol: float = 1e-4, atol: float = 1e-5, batch_norm: bool = False
) -> None:
    """``batch_norm``: the adaptive weights of six steps agree to 1e-5, and those after them to 3 ``rtol``, since batch norm
    enlarges a difference of the last bit about fourfold a step.
    """
    for kind in ('state', 'ema'):
        assert found[kind].keys() == expected[kind].keys()
        for name, value in expected[kind].items():
            where = f'{kind} {name}'
            torch.testing.assert_close(
                found[kind][name], value, rtol=rtol, atol=atol, msg=lambda text, where=where: f'{where}: {text}'
            )
    early = 6 if batch_norm else 0
    torch.testing.assert_close(found['weights'][:early], expected['weights'][:early], rtol=1e-5, atol=0)
    late = 3 * rtol if batch_norm else rtol
    torch.testing.assert_close(found['weights'][early:], expected['weights'][early:], rtol=late, atol=0)
    assert found['norms'][0].keys() == expected['norms'][0].keys()
    for one, other in zip(found['norms'], expected['norms'], strict=True):
        for name in other:
            torch.testing.assert_close(one[name], other[name], rtol=10 * rtol, atol=atol)


# without batch norm: it makes a flipped token, or a hundredth of a weight, of the last bit's difference in ten steps
BLOCKWISE = dict(type='BlockwisePatchGAN', norm='none')
STYLE = dict(type='StyleGAN2Discriminator', image_size=16, channel_base=128)
WITH_LATENT = dict(l1=dict(type='L1Loss'), small=dict(type='LatentNorm'))
PLAIN = dict(type='PatchGAN', width=8, depth=1, norm='none')
TEACHER = dict(type='LivelyTeacher')
EYES = dict(type='DINODiscriminator', teacher=TEACHER, image_size=28, kernel_size=3, norm='none')
ALIGNED = dict(type='AlignmentLoss', teacher=TEACHER, place='tokenizer.decoder.levels.0', channels=8, grid=2)
WITH_TEACHER = dict(l1=dict(type='L1Loss'), align=dict(ALIGNED, distance=dict(type='MarginLoss')))


@pytest.mark.parametrize(
    ('options', 'strategy'),
    [
        (dict(), dict()),
        (
            dict(quantizer=dict(type='VectorQuantizer'), discriminator=PLAIN),
            dict(reshard_after_forward=False),
        ),  # codes that learn by gradient
        (dict(discriminator=BLOCKWISE), dict()),  # a penalty's double backward through blocks
        (dict(discriminator=BLOCKWISE, penalties=dict(lecam=dict(type='LeCamPenalty'))), dict()),
        (dict(accumulate=2, batch_size=4, discriminator=PLAIN), dict()),
        (dict(discriminator=PLAIN, losses=WITH_LATENT), dict()),
        (dict(discriminator=EYES, losses=WITH_TEACHER), dict()),
        (dict(quantizer=dict(type='GumbelQuantizer'), discriminator=STYLE), dict(checkpoint_activations=True)),
        (dict(precision='fp16', quantizer=dict(type='GumbelQuantizer'), discriminator=STYLE), dict()),
    ],
    ids=['ema', 'gradient', 'blocks', 'first-order', 'accumulated', 'latent', 'teachers', 'recomputed', 'fp16'],
)
def test_fsdp_equals_ddp(folder: str, gloo_pool: GlooPool, options: dict[str, Any], strategy: dict[str, Any]) -> None:
    """10 adversarial steps with an adaptive weight and R1 every second one: weights, average, norms, clipping."""
    options = dict(options, iters=10, start=0, warmup=0)
    expected, _ = gloo_pool.run(train_gan, folder, dict(options, strategy='ddp'))
    found, other = gloo_pool.run(train_gan, folder, dict(options, strategy='fsdp'), strategy)
    assert_close(found, expected, batch_norm='discriminator' not in options)
    assert len(found['weights']) == 10 * options.get('accumulate', 1)
    assert other['weights'] == found['weights'] and other['norms'] == found['norms']
    # what is cut is cut: a convolution by half, three output channels into two and one, one into one and none
    conv = 'tokenizer.encoder.levels.0.blocks.0.conv1.weight'
    assert found['parts'][conv] == other['parts'][conv] == (4, 8, 3, 3)
    last = 'tokenizer.decoder.conv_out.weight'
    assert (found['parts'][last][0], other['parts'][last][0]) == (2, 1)
    assert found['parts']['tokenizer.quantizer.codebook.weight'] == (32, 8)
    if 'discriminator.head.weight' in found['parts']:
        assert [answer['parts']['discriminator.head.weight'][0] for answer in (found, other)] == [1, 0]


def test_losses_on_parameters_are_refused(folder: str) -> None:
    losses = dict(l1=dict(type='L1Loss'), decay=dict(type='ParameterNorm'))
    options = dict(iters=4, start=0, warmup=0, discriminator=PLAIN, losses=losses)
    with pytest.raises(ConfigError, match=r'losses on parameters \(decay\) need whole parameters'):
        train_gan(folder, dict(options, strategy='fsdp'))
    assert train_gan(folder, dict(options, strategy='ddp'))['weights']


def test_bf16_is_that_of_ddp_and_stays_near_fp32(folder: str, gloo_pool: GlooPool) -> None:
    """Blocks are gathered in bf16, which is what autocast would have made of them: codes and norms stay in fp32."""
    options = dict(iters=4, start=0, warmup=0, discriminator=PLAIN)
    full, _ = gloo_pool.run(train_gan, folder, dict(options, strategy='fsdp'))
    half, _ = gloo_pool.run(train_gan, folder, dict(options, strategy='fsdp', precision='bf16'))
    replicated, _ = gloo_pool.run(train_gan, folder, dict(options, strategy='ddp', precision='bf16'))
    assert {value.dtype for value in half['state'].values() if value.is_floating_point()} == {torch.float32}
    assert_close(half, replicated, rtol=1e-3, atol=1e-5)
    changed = [name for name, value in full['state'].items() if not torch.equal(value, half['state'][name])]
    assert len(changed) > 50
    for name, value in full['state'].items():
        if 'quantizer' not in name:  # codes jump where a feature lies between two
            torch.testing.assert_close(half['state'][name], value, rtol=0, atol=2e-2)


def test_one_rank_on_its_own_equals_the_base_strategy(folder: str) -> None:
    options = dict(iters=4, start=0, warmup=0)
    assert_close(train_gan(folder, dict(options, strategy='fsdp')), train_gan(folder, dict(options, strategy='base')))


def test_what_is_not_finite_reaches_no_part(folder: str, gloo_pool: GlooPool) -> None:
    for told, after_two_steps, at_the_end in gloo_pool.run(fail_on_one_rank, folder):
        assert 'broken became nan or infinite at step 3' in told
        learned = {name: value for name, value in after_two_steps.items() if not name.startswith('discriminator.blocks')}
        assert len(learned) > 200
        assert_same(learned, {name: at_the_end[name] for name in learned})


def test_an_overflow_in_one_part_stops_all(gloo_pool: GlooPool) -> None:
    assert gloo_pool.run(scale_gradients) == [([True, False, True], [2.0**16, 2.0**15, 2.0**15])] * 2


def test_the_norm_is_of_all_parts_and_optimizers_of_matrices_are_refused(gloo_pool: GlooPool) -> None:
    for norm, told in gloo_pool.run(norm_and_refusal):
        assert norm == pytest.approx((15 * 1.5**2 + 5) ** 0.5, rel=1e-6)
        assert 'Matrices may look at whole tensors' in told
