"""MAR against the public one: its transformer, its diffusion head, whole samplings."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.published import Golden, read_golden
from vq.interfaces import Conditioned, TokenDrawing
from vq.io.published import mar
from vq.registries import VQConditionerRegistry, VQContinuousGeneratorRegistry
from vq.sampling import guidance
from vq.sampling.diffusion.ancestral import ancestral


def close(found: Tensor, wanted: Tensor, rtol: float = 1e-4, share: float = 1e-5) -> None:
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=share * float(wanted.abs().max()))


class Model:
    """The converted parts, with their tensors."""

    def __init__(self, peer: Golden) -> None:
        self.peer = peer
        converted = mar.convert(peer.state, heads=peer.meta['heads'])
        self.config = converted.generator
        self.generator: Any = VQContinuousGeneratorRegistry.build(converted.generator, 'generator').eval()
        self.conditioner: Any = VQConditionerRegistry.build(converted.conditioner, 'conditioner').eval()
        for name in ('generator', 'conditioner'):
            own = {key.removeprefix(f'{name}.'): value for key, value in converted.tensors.items() if key.startswith(name)}
            getattr(self, name).load_state_dict(own)
        self.tokens = self.generator.layout.tokens(peer['in/latent'])
        self.mask = peer['in/mask'].bool()
        places = torch.arange(16).expand(3, -1)
        self.visible, self.hidden = places[~self.mask].view(3, -1), places[self.mask].view(3, -1)

    def vector(self, known: bool = True) -> Tensor:
        table = self.conditioner.table
        return table(self.peer['in/labels'] if known else torch.full((3,), self.conditioner.classes))


@pytest.fixture(scope='module')
def model() -> Model:
    return Model(read_golden('mar_tiny'))


def test_sizes(model: Model) -> None:
    meta, config = model.peer.meta, model.config
    assert [config[key] for key in ('dim', 'decoder_dim', 'depth', 'decoder_depth', 'buffer')] == [32, 32, 2, 2, 4]
    assert (config['dim'], config['depth'], config['buffer']) == (
        meta['encoder_embed_dim'],
        meta['depth'],
        meta['buffer_size'],
    )
    head = config['head']['denoiser']
    assert (head['width'], head['depth']) == (meta['diffloss_w'], meta['diffloss_d']) and head['learned_variance']
    assert model.conditioner.classes == meta['num_classes']


def test_transformer(model: Model) -> None:
    peer, network = model.peer, model.generator.network
    close(model.tokens, peer['out/tokens'], share=0)
    close(network.encode(model.tokens, model.visible, model.vector()), peer['out/encoder_out'])
    close(network(model.tokens, model.visible, model.vector()), peer['out/z'])
    close(network(model.tokens, model.visible, model.vector(False)), peer['out/z_unconditional'])


def test_loss_of_the_head_and_its_gradients(model: Model) -> None:
    """Rows of the peer: all tokens of the batch, the whole block twice. Its loss is the mean over rows of hidden tokens."""
    peer, generator = model.peer, model.generator
    generator.zero_grad()
    z = generator.network(model.tokens, model.visible, model.vector()).flatten(0, 1).repeat(2, 1)
    x, t = model.tokens.flatten(0, 1).repeat(2, 1), (peer['in/t'] + 1) / 1000
    rows = generator.head.rows(x, z, t, peer['in/noise'])
    close(rows['denoising'], peer['out/row_mse'])
    close(rows['bound'], peer['out/row_vb'])
    chosen = model.mask.flatten().repeat(2)
    loss = (rows['denoising'] + generator.head.loss_weights['bound'] * rows['bound'])[chosen].mean()
    close(loss, peer['out/loss'])
    loss.backward()
    network = generator.network
    for found, name in (
        (network.hidden_token.grad[None, None], 'mask_token'),
        (generator.head.denoiser.condition.weight.grad, 'cond_embed'),
        (network.into.weight.grad, 'z_proj'),
    ):
        close(found, peer[f'out/grad_{name}'], rtol=1e-3)


def test_network_of_the_head(model: Model) -> None:
    """The peer gave it the tokens themselves in place of noised ones."""
    peer, head = model.peer, model.generator.head
    z = model.generator.network(model.tokens, model.visible, model.vector()).flatten(0, 1).repeat(2, 1)
    x = model.tokens.flatten(0, 1).repeat(2, 1)[..., None, None]
    value, _, variance, _ = head.denoiser(x, (peer['in/t'] + 1) / 1000, Conditioned(z))
    close(torch.cat([value, variance], 1)[..., 0, 0], peer['out/net_output'])


class Prepared:
    """The orders and the starting noise of the golden file in place of random numbers."""

    shared = 0.0

    def __init__(self, peer: Golden) -> None:
        self.peer = peer

    def uniforms(self, *shape: int, of: str) -> Tensor:
        assert of == 'order'
        return self.peer['in/orders'].argsort(1).float() / 16

    def normals(self, *shape: int, of: str) -> Tensor:
        _, step, purpose = of.split(' ', 2)
        found = self.peer[f'in/sample_start_noise_{step}'].view(3, *shape)
        return found if purpose == 'start' else torch.randn(found.shape)  # temperature 0: it has no influence


@pytest.mark.parametrize(('scale', 'schedule'), [(1.0, 'linear'), (2.5, 'linear'), (2.0, 'constant')])
def test_whole_samplings(model: Model, scale: float, schedule: str) -> None:
    """At temperature 0. The masks before each iteration are checked on the way."""
    peer, seen = model.peer, []
    handle = model.generator.network.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    drawing = TokenDrawing(
        functools.partial(ancestral, steps=peer.meta['num_sampling_steps'], spacing='respaced'),
        functools.partial(getattr(guidance, schedule), scale=scale),
        temperature=0.0,
        num_iter=peer.meta['num_iter'],
    )
    with torch.no_grad():
        known, empty = Conditioned(model.vector()), Conditioned(model.vector(False))
        found = model.generator.generate(Prepared(peer), known, empty, drawing)
    handle.remove()
    close(found, peer[f'out/sample_cfg{scale}_{schedule}'], rtol=1e-3, share=1e-3)
    before = [torch.ones(3, 16, dtype=torch.bool).scatter(1, places[:3], False) for places in seen]
    after = [*before[1:], torch.zeros(3, 16, dtype=torch.bool)]
    masks = peer['out/sample_masks_per_iteration'].bool()  # the tokens that each iteration fixes, or those it leaves
    fixed = torch.stack([one & ~other for one, other in zip(before, after, strict=True)])
    assert torch.equal(masks, fixed) or torch.equal(masks, torch.stack(after)) or torch.equal(masks, torch.stack(before))
