"""The ViT encoder and the ViT feature decoder: equal to torch's layers, odd sizes, positions, precision, decay, sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.decoders.vit_features import ViTFeatureDecoder
from vq.encoders.vit import ViTEncoder
from vq.nn.vit import ViTBlock
from vq.nn.vit_map import ViTMap
from vq.runners.optimizers import mark_undecayed

SMALL: dict[str, Any] = dict(out_channels=5, dim=12, depth=2, heads=3, patch=4, image_size=12)


def stirred(network: ViTMap) -> ViTMap:
    """The network away from zero biases and unit norms."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def make_encoder(**settings: Any) -> ViTMap:
    torch.manual_seed(0)
    return stirred(ViTEncoder(**{**SMALL, **settings}))


def torch_layer(block: ViTBlock) -> nn.TransformerEncoderLayer:
    """torch's pre-norm layer with the weights of a block. A third of its input bias, that of the keys, is zero."""
    dim, hidden = block.proj.in_features, block.mlp_in.out_features
    layer = nn.TransformerEncoderLayer(
        dim, block.heads, hidden, dropout=0.0, activation='gelu', layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    bias = torch.zeros(3, dim)
    bias[0], bias[2] = block.qkv.q_bias, block.qkv.v_bias
    given = {'self_attn.in_proj_weight': block.qkv.weight, 'self_attn.in_proj_bias': bias.flatten()}
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


def oracle(network: ViTMap, x: Tensor, positions: Tensor) -> Tensor:
    """Patch after patch, with torch's layers; ``positions`` (h * w, dim) of the patches."""
    side, (height, width) = network.patch, (length // network.patch for length in x.shape[-2:])
    weight = network.stem.weight.flatten(1)
    rows = [network.class_token.expand(len(x), -1) + network.positions.weight[0]]
    for number in range(height * width):
        top, left = number // width * side, number % width * side
        patch = x[:, :, top : top + side, left : left + side].flatten(1)
        rows.append(patch @ weight.T + network.stem.bias + positions[number])
    tokens = torch.stack(rows, 1)
    for block in network.blocks:
        tokens = torch_layer(block)(tokens)
    found = F.layer_norm(tokens, tokens.shape[-1:], network.norm_out.weight, network.norm_out.bias, 1e-6)[:, 1:]
    found = network.task_out(torch.tanh(network.task_in(found)))
    return found.transpose(1, 2).reshape(len(x), -1, height, width)


def test_encoder_is_the_transformer_of_the_formula() -> None:
    encoder, image = make_encoder(), torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(encoder(image), oracle(encoder, image, encoder.positions.weight[1:]), rtol=1e-4, atol=1e-5)


def test_feature_decoder_is_the_transformer_of_the_formula() -> None:
    decoder = stirred(ViTFeatureDecoder(5, 7, dim=12, depth=1, heads=3, grid=3))
    z = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(decoder(z), oracle(decoder, z, decoder.positions.weight[1:]), rtol=1e-4, atol=1e-5)


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def stretched(table: Tensor, before: int, height: int, width: int) -> Tensor:
    """(before * before, dim) -> (height * width, dim): cubic convolution at (i + 0.5) * before / (n + 0.1) - 0.5."""

    def weights(count: int) -> Tensor:
        found = torch.zeros(count, before)
        for place in range(count):
            at = (place + 0.5) * before / (count + 0.1) - 0.5
            for near in range(int(at // 1) - 1, int(at // 1) + 3):
                found[place, min(max(near, 0), before - 1)] += cubic(at - near)
        return found

    plane = table.view(before, before, -1)
    return torch.einsum('ya,xb,abd->yxd', weights(height), weights(width), plane).flatten(0, 1)


@pytest.mark.parametrize(('height', 'width'), [(16, 16), (8, 20)])
def test_other_sizes_get_stretched_positions(height: int, width: int) -> None:
    encoder, image = make_encoder(), torch.randn(2, 3, height, width)
    positions = stretched(encoder.positions.weight[1:], 3, height // 4, width // 4)
    torch.testing.assert_close(encoder(image), oracle(encoder, image, positions), rtol=1e-4, atol=1e-5)


def test_sizes_that_are_no_patches_are_refused() -> None:
    with pytest.raises(ConfigError, match='14 x 12'):
        make_encoder()(torch.randn(1, 3, 14, 12))


def test_features_are_fp32_under_autocast() -> None:
    encoder, image = make_encoder().eval(), torch.randn(2, 3, 16, 12)
    exact = encoder(image)
    with torch.autocast('cpu', torch.bfloat16):
        features = encoder.body(image)
        found = encoder(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, encoder.head(features), rtol=0, atol=0)  # the last two layers do not round
    torch.testing.assert_close(found, exact, rtol=0, atol=0.05 * float(exact.detach().abs().max()))


def test_a_network_in_half_precision_runs_at_every_size() -> None:
    assert make_encoder().bfloat16()(torch.randn(1, 3, 8, 16).bfloat16()).dtype == torch.bfloat16


@pytest.mark.slow
def test_it_is_one_graph_for_the_compiler() -> None:
    """At the learned size and at another one."""
    encoder = make_encoder()
    traced = torch.compile(encoder, backend='eager', fullgraph=True, dynamic=False)
    for image in (torch.randn(2, 3, 12, 12), torch.randn(2, 3, 16, 8)):
        torch.testing.assert_close(traced(image), encoder(image), rtol=1e-5, atol=1e-6)


def test_recomputed_blocks_give_the_same_gradients() -> None:
    image, found = torch.randn(2, 3, 12, 12), []
    for recompute in (False, True):
        encoder = make_encoder()
        for block in encoder.shard_blocks():
            block.recompute = recompute
        encoder(image).square().mean().backward()
        found.append([parameter.grad for parameter in encoder.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_biases_norms_tokens_and_positions_are_not_decayed() -> None:
    encoder = make_encoder()
    mark_undecayed(encoder, list(encoder.parameters()))
    decayed = {name for name, parameter in encoder.named_parameters() if not parameter.undecayed}
    layers = ('qkv', 'proj', 'mlp_in', 'mlp_out')
    blocks = {f'blocks.{number}.{layer}.weight' for number in range(2) for layer in layers}
    assert decayed == {'stem.weight', 'task_in.weight', 'task_out.weight', *blocks}


def test_first_weights() -> None:
    """Normal distributions of deviation 0.02, cut at two deviations; the output layers of block i divided by sqrt(2 i)."""
    torch.manual_seed(0)
    encoder, usual = ViTEncoder(dim=96, depth=3, heads=4, patch=4, image_size=24), 0.02 * 0.8796
    for table in (encoder.stem, encoder.positions, encoder.task_in, encoder.blocks[2].qkv, encoder.blocks[1].mlp_in):
        assert table.weight.std().item() == pytest.approx(usual, rel=0.05)
    for number, block in enumerate(encoder.blocks, 1):
        for added in (block.proj, block.mlp_out):
            assert added.weight.std().item() == pytest.approx(usual / (2 * number) ** 0.5, rel=0.05)
    assert encoder.class_token.any() and not encoder.blocks[0].qkv.q_bias.any() and not encoder.task_out.bias.any()


@pytest.mark.parametrize('settings', [dict(heads=5), dict(depth=0), dict(patch=0), dict(image_size=14), dict(image_size=0)])
def test_settings_that_mean_nothing(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        make_encoder(**settings)
