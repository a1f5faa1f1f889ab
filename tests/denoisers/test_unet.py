"""The UNet: equal to those of diffusers, blocks from anywhere, and what it refuses."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.denoisers.unet.network import UNet
from vq.interfaces import Conditioned, Denoiser
from vq.io.published.unet import from_diffusers
from vq.nn.recompute import Recomputed
from vq.registries import VQDenoiserRegistry, VQUNetBlockRegistry

WIDTH, MULTIPLIERS = 32, (1, 2)
SMALL: dict[str, Any] = dict(channels=3, cells=(8, 8), width=WIDTH, multipliers=MULTIPLIERS, res_blocks=1, attention_at=(2,))
TEXT: dict[str, Any] = dict(sequence_dim=12, attention_at=(1,), attn_block_type=dict(type='SpatialTransformer', heads=4))


def shaken(network: nn.Module) -> nn.Module:
    """Every weight random, so that no zero hides a mistake."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.1)
    return network.eval()


def inputs(rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(1)
    z, text = torch.randn(rows, 3, 8, 8, generator=stream), torch.randn(rows, 5, 12, generator=stream)
    return z, torch.tensor([3, 870])[:rows], text


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def shapes(res_blocks: int) -> dict[str, Any]:
    own = dict(sample_size=8, in_channels=3, out_channels=6, layers_per_block=res_blocks, norm_num_groups=32)
    return own | dict(block_out_channels=tuple(WIDTH * multiplier for multiplier in MULTIPLIERS))


@pytest.mark.slow
@pytest.mark.parametrize('scale_shift', [False, True])
def test_it_equals_the_unet_of_diffusers(scale_shift: bool) -> None:
    import diffusers

    blocks = dict(down_block_types=('DownBlock2D', 'AttnDownBlock2D'), up_block_types=('AttnUpBlock2D', 'UpBlock2D'))
    how: dict[str, Any] = dict(attention_head_dim=16, norm_eps=1e-5, attn_norm_num_groups=32)
    how |= dict(resnet_time_scale_shift='scale_shift' if scale_shift else 'default')
    theirs = shaken(diffusers.UNet2DModel(**shapes(2), **blocks, **how))
    own: dict[str, Any] = dict(attn_block_type=dict(type='SelfAttention', head_dim=16), learned_variance=True, res_blocks=2)
    ours = UNet(**SMALL | own | dict(res_block_type=dict(type='ResBlock', scale_shift=scale_shift))).eval()
    ours.load_state_dict(from_diffusers(theirs.state_dict(), lambda channels: channels // 16))
    z, index, _ = inputs()
    found, expected = ours(z, (index + 1) / 1000), theirs(z, index).sample
    assert found.kind == 'epsilon'
    close(torch.cat([found.value, found.variance], 1), expected)


@pytest.mark.slow
@pytest.mark.parametrize('linear', [False, True])
def test_it_equals_the_conditional_unet_of_diffusers(linear: bool) -> None:
    """A text with a mask, as published networks of texts take it."""
    import diffusers

    down, up = ('CrossAttnDownBlock2D', 'DownBlock2D'), ('UpBlock2D', 'CrossAttnUpBlock2D')
    how = dict(attention_head_dim=4, cross_attention_dim=12, norm_eps=1e-5, use_linear_projection=linear)
    theirs = shaken(diffusers.UNet2DConditionModel(**shapes(1), down_block_types=down, up_block_types=up, **how))
    ours = UNet(**SMALL | TEXT, learned_variance=True).eval()
    ours.load_state_dict(from_diffusers(theirs.state_dict(), lambda channels: 4))
    z, index, text = inputs()
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    found = ours(z, (index + 1) / 1000, Conditioned(sequence=text, sequence_mask=mask))
    close(torch.cat(found[:1] + found[2:3], 1), theirs(z, index, text, encoder_attention_mask=mask).sample)
    cut = ours(z[1:], (index[1:] + 1) / 1000, Conditioned(sequence=text[1:, :2]))
    close(cut.value, found.value[1:])
    assert ours.takes == ('vector', 'sequence')
    with pytest.raises(ConfigError, match='attends to a sequence, and the conditioner gives none'):
        ours(z, index / 1000)


def test_vectors_of_a_conditioner_are_added_to_the_time() -> None:
    """As in guided diffusion, and in diffusers with ``num_class_embeds``."""
    import diffusers

    blocks = dict(down_block_types=('DownBlock2D', 'DownBlock2D'), up_block_types=('UpBlock2D', 'UpBlock2D'))
    theirs = shaken(diffusers.UNet2DModel(**shapes(1), **blocks, attention_head_dim=64, norm_eps=1e-5, num_class_embeds=3))
    state = theirs.state_dict()
    table = state.pop('class_embedding.weight')
    ours = UNet(**SMALL | dict(attention_at=()), learned_variance=True).eval()
    ours.load_state_dict(from_diffusers(state, lambda channels: 1))
    z, index, _ = inputs()
    classes = torch.tensor([2, 0])
    found = ours(z, (index + 1) / 1000, Conditioned(table[classes]))
    close(torch.cat(found[:1] + found[2:3], 1), theirs(z, index, class_labels=classes).sample)
    assert ours.dim == table.shape[1]


OWN = """
from torch import nn

from vq.interfaces import ConditionBlock, EmbedBlock
from vq.registries import VQUNetBlockRegistry


@VQUNetBlockRegistry.register_()
class OwnRes(EmbedBlock):
    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, power: float = 1.0) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv2d(in_channels, out_channels, 1), nn.Linear(embedding_dim, out_channels)
        self.power = power

    def forward(self, x, embedding):
        return self.power * self.conv(x) + self.embed(embedding)[:, :, None, None]


@VQUNetBlockRegistry.register_()
class OwnPooled(ConditionBlock):
    reads = ('sequence',)

    def __init__(self, channels: int, sequence_dim: int) -> None:
        super().__init__()
        self.into = nn.Linear(sequence_dim, channels)

    def forward(self, x, condition):
        return x + self.into(condition.sequence.mean(1))[:, :, None, None]
"""


@pytest.fixture
def own_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module outside of the repository, as ``custom_imports`` would import it."""
    (tmp_path / 'own_unet_blocks.py').write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module('own_unet_blocks')
    sys.modules.pop('own_unet_blocks')
    for name in ('OwnRes', 'OwnPooled'):
        del VQUNetBlockRegistry[name]


def test_blocks_from_outside_are_named_in_a_config_and_train(own_blocks: Any) -> None:
    torch.manual_seed(0)
    config = dict(SMALL, type='UNet', sequence_dim=12, attn_block_type='OwnPooled')
    network: Denoiser = VQDenoiserRegistry.build(dict(config, res_block_type=dict(type='OwnRes', power=0.5)))
    assert isinstance(network.down[1].res[0], own_blocks.OwnRes) and network.down[1].res[0].power == 0.5
    assert isinstance(network.middle.attention[0], own_blocks.OwnPooled) and network.takes == ('vector', 'sequence')
    z, index, text = inputs()
    optimizer, losses = torch.optim.Adam(network.parameters(), 1e-2), []
    for _ in range(15):
        loss = (network(z, index / 1000, Conditioned(sequence=text)).value - z).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_recomputed_activations_give_the_same_gradients() -> None:
    ours = shaken(UNet(**SMALL | TEXT)).train()
    z, index, text = inputs()
    gradients = []
    for recompute in (False, True):
        for module in ours.modules():
            if isinstance(module, Recomputed):
                module.recompute = recompute
        loss = ours(z, index / 1000, Conditioned(sequence=text)).value.square().mean()
        gradients.append(torch.autograd.grad(loss, [*ours.parameters()]))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(multipliers=(1, 1, 1, 1, 1)), 'multiples of 16'),
        (dict(width=31), 'Give an even width'),
        (dict(attention_at=(3,)), 'attention_at has the factor 3'),
        (dict(attn_block_type=dict(type='SelfAttention', heads=5)), 'must divide the channels'),
        (dict(attn_block_type='SpatialTransformer'), 'set sequence_dim of the UNet'),
        (dict(res_block_type='ResBlok'), "unknown type 'ResBlok'.*did you mean 'ResBlock'"),
        (dict(res_block_type=dict(type='ResBlock', dropot=0.1)), "ResBlock has no parameter 'dropot'"),
    ],
)
def test_settings_that_do_not_fit_say_so(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        UNet(**SMALL | settings)
    assert re.search(words, f'{error.value.message} {error.value.hint}', re.DOTALL)
