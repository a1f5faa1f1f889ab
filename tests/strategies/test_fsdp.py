"""FSDP2 on gloo ranks: the same training as DDP, in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import GlooPool
from tests.strategies.fsdp_runs import train_gan, write_fsdp_config

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> str:
    write_fsdp_config(tmp_path)
    return str(tmp_path)


def assert_close(found: dict[str, Any], expected: dict[str, Any], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    for kind in ('state', 'ema'):
        assert found[kind].keys() == expected[kind].keys()
        for name, value in expected[kind].items():
            torch.testing.assert_close(
                found[kind][name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: f'{kind} {name}: {text}'
            )
    torch.testing.assert_close(found['weights'], expected['weights'], rtol=rtol, atol=0)
    assert found['norms'][0].keys() == expected['norms'][0].keys()
    for one, other in zip(found['norms'], expected['norms'], strict=True):
        for name in other:
            torch.testing.assert_close(one[name], other[name], rtol=10 * rtol, atol=atol)


# without batch norm: it makes a flipped token, or a hundredth of a weight, of the last bit's difference in ten steps
BLOCKWISE = dict(type='BlockwisePatchGAN', norm='none')
PLAIN = dict(type='PatchGAN', width=8, depth=1, norm='none')


@pytest.mark.parametrize(
    ('options', 'strategy'),
    [
        (dict(), dict()),
        (dict(quantizer=dict(type='VectorQuantizer'), discriminator=PLAIN), dict(reshard_after_forward=False)),  # codes that learn by gradient
        (dict(discriminator=BLOCKWISE), dict()),  # a penalty's double backward through blocks
        (dict(discriminator=BLOCKWISE, penalties=dict(lecam=dict(type='LeCamPenalty'))), dict()),
        (dict(accumulate=2, batch_size=4, discriminator=PLAIN), dict()),
    ],
    ids=['ema', 'gradient', 'blocks', 'first-order', 'accumulated'],
)
def test_fsdp_equals_ddp(folder: str, gloo_pool: GlooPool, options: dict[str, Any], strategy: dict[str, Any]) -> None:
    """10 adversarial steps with an adaptive weight and R1 every second one: weights, average, norms, clipping."""
    options = dict(options, iters=10, start=0, warmup=0)
    expected, _ = gloo_pool.run(train_gan, folder, dict(options, strategy='ddp'))
    found, other = gloo_pool.run(train_gan, folder, dict(options, strategy='fsdp'), strategy)
    assert_close(found, expected)
    assert len(found['weights']) == 10 * options.get('accumulate', 1)
    assert other['weights'] == found['weights'] and other['norms'] == found['norms']
    # what is cut is cut: a convolution by half, three output channels into two and one, one into one and none
    conv = 'tokenizer.encoder.levels.0.blocks.0.conv1.weight'
    assert found['parts'][conv] == other['parts'][conv] == (4, 8, 3, 3)
    last = 'tokenizer.decoder.conv_out.weight'
    assert (found['parts'][last][0], other['parts'][last][0]) == (2, 1)
    assert (found['parts']['discriminator.head.weight'][0], other['parts']['discriminator.head.weight'][0]) == (1, 0)
    assert found['parts']['tokenizer.quantizer.codebook.weight'] == (32, 8)
