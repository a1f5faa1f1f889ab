"""The ViT decoder: blocks equal to torch's, interpolated positions, the gradient of the last layer by autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.decoders.vit import ViTDecoder
from vq.nn.vit import ViTBlock, make_blocks
from vq.runners.optimizers import mark_undecayed

SMALL: dict[str, Any] = dict(dim=12, depth=2, heads=3, patch=4, grid=3)


def make_decoder(**settings: Any) -> ViTDecoder:
    torch.manual_seed(0)
    decoder = ViTDecoder(5, **{**SMALL, **settings})
    with torch.no_grad():
        for parameter in decoder.parameters():  # away from zero biases and unit norms
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def torch_layer(block: ViTBlock) -> nn.TransformerEncoderLayer:
    """torch's pre-norm layer with the weights of a block."""
    dim, hidden = block.proj.in_features, block.mlp_in.out_features
    layer = nn.TransformerEncoderLayer(
        dim, block.heads, hidden, dropout=0.0, activation='gelu', layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    given = {'self_attn.in_proj_weight': block.qkv.weight, 'self_attn.in_proj_bias': block.qkv.bias}
    names = {
        'self_attn.out_proj': block.proj,
        'linear1': block.mlp_in,
        'linear2': block.mlp_out,
        'norm1': block.norm_attention,
        'norm2': block.norm_mlp,
    }
    for name, part in names.items():
        given |= {f'{name}.weight': part.weight, f'{name}.bias': part.bias}
    layer.load_state_dict(given)
    return layer


def oracle(decoder: ViTDecoder, z: Tensor) -> Tensor:
    """Position after position, patch after patch, with torch's layers."""
    batch, _, height, width = z.shape
    rows = z.flatten(2).transpose(1, 2) @ decoder.stem.weight[:, :, 0, 0].T + decoder.stem.bias
    x = rows + decoder.positions.weight
    for block in decoder.blocks:
        x = torch_layer(block)(x)
    x = F.layer_norm(x, (x.shape[-1],), decoder.norm_out.weight, decoder.norm_out.bias, 1e-6)
    image = torch.zeros(batch, 3, height * decoder.patch, width * decoder.patch)
    for y in range(height):
        for x_ in range(width):
            patch = (x[:, y * width + x_] @ decoder.out.weight.T + decoder.out.bias).view(
                batch, 3, decoder.patch, decoder.patch
            )
            rows_, columns = (slice(at * decoder.patch, (at + 1) * decoder.patch) for at in (y, x_))
            image[:, :, rows_, columns] = patch
    return image


def test_it_is_the_transformer_of_the_formula() -> None:
    decoder, z = make_decoder(), torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(decoder(z), oracle(decoder, z), rtol=1e-4, atol=1e-5)


def test_other_grids_get_stretched_positions() -> None:
    decoder = make_decoder().eval()
    assert decoder(torch.randn(2, 5, 4, 6)).shape == (2, 3, 16, 24)
    learned = decoder.positions.weight.detach().T.view(1, 12, 3, 3)
    expected = F.interpolate(learned, (4, 6), mode='bicubic')
    torch.testing.assert_close(decoder._positions(4, 6), expected)
    assert torch.equal(decoder._positions(3, 3), learned)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_gradients_of_the_last_layer(dtype: torch.dtype) -> None:
    decoder, z = make_decoder(), torch.randn(3, 5, 2, 4)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
        features = decoder.features(z)
        image = decoder.project(features)
        outer = torch.randn(2, *image.shape)
        expected = [torch.autograd.grad(image, decoder.out.weight, one.to(image.dtype), retain_graph=True)[0] for one in outer]
        found = decoder.last_layer_gradients(features.detach(), image.detach(), outer)
    assert found.dtype == torch.float32 and found.shape == (2, *decoder.out.weight.shape)
    tolerance = 1e-5 if dtype == torch.float32 else 0.03 * float(expected[0].abs().max())
    torch.testing.assert_close(found, torch.stack(expected).float(), rtol=1e-4, atol=tolerance)


def test_recomputed_blocks_give_the_same_gradients() -> None:
    z, found = torch.randn(2, 5, 3, 3), []
    for recompute in (False, True):
        decoder = make_decoder()
        for block in decoder.shard_blocks():
            block.recompute = recompute
        decoder(z).square().mean().backward()
        found.append([parameter.grad for parameter in decoder.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(('settings', 'millions'), [(dict(), 85.9), (dict(dim=1280, depth=32, heads=16), 631.0)])
def test_sizes(settings: dict[str, Any], millions: float) -> None:
    """Counted by hand: 12 d^2 + 13 d per block, plus stem, positions, norm and last layer."""
    with torch.device('meta'):
        decoder = ViTDecoder(32, **settings)
    d, depth = settings.get('dim', 768), settings.get('depth', 12)
    expected = depth * (12 * d * d + 13 * d) + (32 + 1) * d + 256 * d + 2 * d + 768 * (d + 1)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected
    assert expected / 1e6 == pytest.approx(millions, abs=0.1)


def test_first_weights_shrink_with_depth() -> None:
    torch.manual_seed(0)
    blocks = make_blocks(4, 64, 4)
    usual = 0.02 * 0.8796  # standard deviation of a normal distribution truncated at two deviations
    for number, block in enumerate(blocks, 1):
        assert block.qkv.weight.std().item() == pytest.approx(usual, rel=0.05)
        for added in (block.proj, block.mlp_out):
            assert added.weight.std().item() == pytest.approx(usual / (2 * number) ** 0.5, rel=0.05)
        assert not block.qkv.bias.any()


def test_positions_are_not_decayed() -> None:
    decoder = make_decoder()
    mark_undecayed(decoder, list(decoder.parameters()))
    assert decoder.positions.weight.undecayed and not decoder.out.weight.undecayed


@pytest.mark.parametrize('settings', [dict(heads=5), dict(depth=0), dict(patch=0), dict(grid=0)])
def test_settings_that_mean_nothing(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        make_decoder(**settings)
