"""A published network with adapters: what trains, what a training may find missing, and its first estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.denoisers.test_unet import inputs
from vq.assembly.building import load_weights
from vq.conditioners.layout import BoxConditioner
from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.denoisers.unet.network import UNet
from vq.denoisers.unet.transformer import SpatialTransformer
from vq.interfaces import Task
from vq.io import tensorfile
from vq.io.atomic import atomic_file
from vq.io.weights import Misfit

SIZES: dict[str, Any] = dict(channels=3, cells=(8, 8), width=32, multipliers=(1, 2), res_blocks=1, attention_at=(2,))
TEXT: dict[str, Any] = dict(sequence_dim=12)
ADAPTED: dict[str, Any] = dict(adapter_type='RegionAttention', adapters_at=(1, 2), layout_dim=6)


def network(prompts: int = 0, **more: Any) -> UNet:
    torch.manual_seed(0)
    attention = dict(type='SpatialTransformer', heads=4, prompts=prompts, prompt_dim=4, image_tokens=prompts > 0)
    found = UNet(**SIZES, **TEXT, attn_block_type=attention, **more)
    for part in (found, *(block for block in found.modules() if isinstance(block, SpatialTransformer))):
        nn.init.normal_((part.out if part is found else part.proj).weight, std=0.1)  # type: ignore[arg-type]  # not zero
    return found


class Model(Task):
    """A task with a denoiser and a conditioner, as far as files of weights go."""

    def __init__(self, denoiser: UNet) -> None:
        super().__init__()
        self.denoiser, self.conditioner = denoiser, BoxConditioner(4, 6, image_size=32)


class Context:
    full = None

    def __init__(self) -> None:
        self.meta: dict[str, Any] = {}


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, UNet]:
    """The file of a network without adapters and prompts."""
    base = network()
    tensors = {f'denoiser.{key}': value for key, value in base.state_dict().items()}
    with atomic_file(tmp_path / 'base.safetensors', tensorfile.size_of(tensors)) as writer:
        tensorfile.write_tensors(writer, tensors, {})
    return tmp_path / 'base.safetensors', base


def boxes() -> Condition:
    corners = torch.tensor([[[0.0, 0, 16, 16]], [[8, 8, 32, 32]]])
    return Condition(boxes=corners, box_categories=torch.tensor([[1], [2]]), boxes_mask=torch.ones(2, 1).bool())


def estimate(denoiser: UNet, told: Any) -> Tensor:
    z, index, text = inputs()
    found: Tensor = denoiser(z, index / 1000, told._replace(sequence=text)).value
    return found


def test_training_begins_with_new_adapters_and_the_estimate_of_the_base(published: Any) -> None:
    """To the bit, since adapters start at zero; and the report says what is new."""
    file, base = published
    model, context = Model(network(**ADAPTED)), Context()
    load_weights(model, [str(file)], 'auto', context, statistics=False)  # type: ignore[arg-type]
    told = model.conditioner(boxes(), 2)
    assert torch.equal(estimate(model.denoiser.eval(), told), estimate(base.eval(), told))
    assert 'new (denoiser.adapters.down_0_0' in context.meta['loaded'] and 'conditioner.table.weight' in {*model.state_dict()}
    with pytest.raises(Misfit, match='missing'):  # to draw or to measure without trained adapters is an error
        load_weights(model, [str(file)], 'auto', Context())  # type: ignore[arg-type]


def test_a_lost_tensor_of_the_base_is_an_error(published: Any, tmp_path: Path) -> None:
    tensors = tensorfile.read_tensors(published[0])
    del tensors['denoiser.into.weight']
    with atomic_file(tmp_path / 'less.safetensors', tensorfile.size_of(tensors)) as writer:
        tensorfile.write_tensors(writer, tensors, {})
    with pytest.raises(Misfit, match=r'denoiser\.into\.weight'):
        load_weights(Model(network(**ADAPTED)), [str(tmp_path / 'less.safetensors')], 'auto', Context(), statistics=False)  # type: ignore[arg-type]


@pytest.mark.parametrize('trains', ['adapters', 'all'])
def test_what_trains(trains: str) -> None:
    """Adapters, learned entries and their projections; base weights stay as they are to the bit, or train as well."""
    denoiser = network(prompts=3, trains=trains, **ADAPTED).train()
    added = {key for key in denoiser.state_dict() if key.startswith('adapters.') or 'prompt' in key or 'image_proj' in key}
    open_ = {key for key, value in denoiser.named_parameters() if value.requires_grad}
    assert open_ == (added if trains == 'adapters' else {*denoiser.state_dict()}) and len(added) > 20
    before = {key: value.clone() for key, value in denoiser.state_dict().items()}
    optimizer = torch.optim.Adam([value for value in denoiser.parameters() if value.requires_grad], 1e-2)
    told = Model(denoiser).conditioner(boxes(), 2)
    for _ in range(2):  # the first step moves the zero projections alone
        optimizer.zero_grad()
        estimate(denoiser, told).square().mean().backward()
        optimizer.step()
    moved = {key for key, value in denoiser.state_dict().items() if not torch.equal(value, before[key])}
    assert moved <= open_ and {key for key in added if not key.endswith('qkv.bias')} <= moved
    assert trains == 'adapters' or 'into.weight' in moved


def test_prompts_stand_in_for_a_text() -> None:
    denoiser, (z, index, _) = network(prompts=3, **ADAPTED).eval(), inputs()
    told = Model(denoiser).conditioner(boxes(), 2)
    assert denoiser(z, index / 1000, told).value.shape == z.shape
    with pytest.raises(ConfigError, match='attends to a sequence'):
        network(**ADAPTED)(z, index / 1000, told)


def test_there_is_nothing_to_train_without_adapters() -> None:
    with pytest.raises(ConfigError, match="trains is 'adapters', and there are none"):
        network(trains='adapters')
