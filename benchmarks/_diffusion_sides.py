"""The sides of ``diffusion.py``: our task, diffusers' DiT with its scheduler, the plain form. All have the weights of ours.

Each side has ``step``, a training step, and ``sample``, DDIM with classifier-free guidance from given noise. Ours are those of
the task: ``DiffusionTask.training_step`` and ``DiffusionTask.draw``. The others are the loops of diffusers' examples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from _plain_dit import PlainDDIM, PlainDiT, paired, plain_form
from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.records import Batch
from vq.io.diffusers_dit import PERIOD, DiTShape, dit_config, dit_tensors
from vq.registries import VQTaskRegistry
from vq.tasks.diffusion.drawing import noise_of, steps_of
from vq.tasks.diffusion.numbers import numbers_of

CLASSES, TIMES, SCALE, DOWN = 1000, 1000, 4.0, 8


class Size(NamedTuple):
    """Of a denoiser of latents (4, side, side), and of the work."""

    side: int
    patch: int
    dim: int
    depth: int
    heads: int
    rows: int  # images in a training step
    drawn: int  # images that are sampled at a time; the network sees twice as many rows
    steps: int = 50  # of the sampler

    @property
    def name(self) -> str:
        tokens = (self.side // self.patch) ** 2
        return f'{self.depth} x {self.dim}, {tokens} tokens'


def autoencoder(width: int) -> dict[str, Any]:
    """A KL autoencoder of 4 channels that shrinks images by 8, as that of Stable Diffusion does, whose width is 128."""
    shape = {'width': width, 'multipliers': (1, 2, 4, 4), 'attention_levels': (), 'norm_groups': 8}
    return {
        'type': 'KLAutoencoder',
        'encoder': {'type': 'ConvEncoder', 'residual_blocks': 2, 'out_channels': 8, **shape},
        'decoder': {'type': 'ConvDecoder', 'residual_blocks': 2, 'in_channels': 4, **shape},
    }


def build(
    size: Size,
    width: int = 8,
    drop: float = 0.1,
    energy: dict[str, Any] | None = None,
    losses: dict[str, Any] | None = None,
) -> Any:
    """Our task. Weights that start at zero are drawn, so that every part counts. ``energy``: settings of an ``Energy`` around
    the network."""
    torch.manual_seed(0)
    network = {name: getattr(size, name) for name in ('patch', 'dim', 'depth', 'heads')}
    denoiser: dict[str, Any] = {'type': 'DiT', **network, 'timesteps': TIMES, 'time_period': PERIOD}
    if energy is not None:
        denoiser = {'type': 'Energy', 'denoiser': denoiser, **energy}
    config = {
        'type': 'DiffusionTask',
        'tokenizer': {'type': 'FrozenTokenizer', 'tokenizer': autoencoder(width), 'image_size': DOWN * size.side},
        'denoiser': denoiser,
        'conditioner': {'type': 'ClassConditioner', 'classes': CLASSES, 'drop': drop},
        'path': {'type': 'BetaPath', 'steps': TIMES},
        'times': {'type': 'UniformTimes'},
        'losses': losses or {},
        'sampler': {'type': 'DDIM', 'steps': size.steps},
        'guidance': {'type': 'ConstantGuidance', 'scale': SCALE},
    }
    task = VQTaskRegistry.build(config, 'model')
    for parameter in task.denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    task.tokenizer.tokenizer.statistics.put(torch.zeros(4), torch.ones(4))
    return task.train()


def batch_of(size: Size, rows: int, device: Any = 'cpu') -> Batch:
    """Cached latents."""
    stream = torch.Generator().manual_seed(1)
    latent = torch.randn(rows, 4, size.side, size.side, generator=stream)
    category = torch.randint(0, CLASSES, (rows,), generator=stream)
    return Batch(None, [str(row) for row in range(rows)], torch.arange(rows), category, latent=latent).to(device)


def numbers_of_step(task: Any, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """Index of the time (B,) and noise, as our task draws them in a step."""
    numbers = numbers_of(batch, task.seed, step, task.space.spec.shape)
    t, _ = task.times(numbers.time, task.path)
    return (t * TIMES).round().long() - 1, numbers.noise


def first_noise(size: Size, device: Any = 'cpu') -> Tensor:
    """The noise that ``draw`` starts from, for images 0, 1, .. of seed 0."""
    return noise_of(0, list(range(size.drawn)), 'latent', (4, size.side, size.side), torch.device(device))


class Side:
    """A network with its optimizer."""

    def __init__(self, network: nn.Module, rate: float = 1e-4) -> None:
        self.network, self.loss = network, torch.zeros(())
        parameters = list(network.parameters())
        self.optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.0, fused=True)

    def learn(self, loss: Tensor, update: bool) -> None:
        self.loss = loss.detach()
        loss.backward()  # type: ignore[no-untyped-call]
        if update:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def gradients(self) -> dict[str, Tensor]:
        return {name: value.grad for name, value in self.network.named_parameters() if value.grad is not None}


class Ours(Side):
    def __init__(self, task: Any) -> None:
        self.task = task
        self.roots = task.roots()
        super().__init__(self.roots['denoiser'])
        self.done = 1

    def step(self, batch: Batch, update: bool = True) -> None:
        self.done += update
        for _, losses in self.task.training_step(batch, self.roots, self.done):
            self.learn(losses.total, update)
        self.task.update()

    def sample(self, category: Tensor) -> Tensor:
        """Classes (B,) -> latents (B, 4, side, side). The noise is drawn, too."""
        self.task.eval()
        latents: Tensor = self.task.draw(Wanted(list(range(len(category))), 0, Condition(category))).latents
        self.task.train()
        return latents


class Peer(Side):
    """A network (z, index of the time, classes) -> noise, and a scheduler of its own."""

    def __init__(self, network: nn.Module, drop: float) -> None:
        super().__init__(network)
        self.drop = drop

    def noised(self, x0: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        raise NotImplementedError

    def times(self) -> list[Any]:
        """The indices of a sampling run, falling, as ``previous`` takes them."""
        raise NotImplementedError

    def previous(self, noise: Tensor, index: Any, z: Tensor) -> Tensor:
        raise NotImplementedError

    def noise(self, z: Tensor, index: Tensor, category: Tensor) -> Tensor:
        raise NotImplementedError

    def step(self, batch: Batch, update: bool = True, numbers: tuple[Tensor, Tensor] | None = None) -> None:
        """``numbers``: index (B,) and noise (B, 4, side, side), drawn if they are not given."""
        x0, category = batch.latent, batch.category
        assert x0 is not None and category is not None
        if numbers is None:
            numbers = torch.randint(0, TIMES, (len(x0),), device=x0.device), torch.randn_like(x0)
        index, noise = numbers
        z = self.noised(x0, noise, index)
        self.learn(F.mse_loss(self.noise(z, index, self.dropped(category)), noise), update)

    def dropped(self, category: Tensor) -> Tensor:
        if not self.drop:
            return category
        return torch.where(torch.rand(len(category), device=category.device) < self.drop, CLASSES, category)

    @torch.no_grad()
    def sample(self, category: Tensor, z: Tensor) -> Tensor:
        self.network.eval()
        classes = torch.cat([category, torch.full_like(category, CLASSES)])
        for index in self.times():
            both = self.noise(torch.cat([z, z]), torch.full_like(classes, int(index)), classes)
            known, unknown = both.chunk(2)
            z = self.previous(unknown + SCALE * (known - unknown), index, z)
        self.network.train()
        return z


class Plain(Peer):
    network: PlainDiT

    def __init__(self, task: Any, drop: float = 0.1) -> None:
        super().__init__(plain_form(task.denoiser, task.conditioner.table.weight, PERIOD), drop)
        self.scheduler = PlainDDIM(TIMES, steps_of(task.drawn_by.sampler))
        self.noised, self.previous = self.scheduler.noised, self.scheduler.step  # type: ignore[method-assign]

    def times(self) -> list[int]:
        return self.scheduler.indices

    def noise(self, z: Tensor, index: Tensor, category: Tensor) -> Tensor:
        found: Tensor = self.network(z, index, category)
        return found

    def of_ours(self, values: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
        return paired(values, table, dict(self.network.named_parameters()))


class Diffusers(Peer):
    """``DiTTransformer2DModel``. Its blocks have layers of time and classes of their own, which are equal."""

    def __init__(self, task: Any, drop: float = 0.1) -> None:
        from diffusers import DDIMScheduler, DiTTransformer2DModel

        ours, table = task.denoiser, task.conditioner.table.weight
        tensors = dit_tensors(ours.state_dict(), table)
        config = dit_config(tensors, DiTShape(ours.heads, ours.cells[0], ours.channels))
        config.pop('_class_name')
        with table.device:
            network = DiTTransformer2DModel(**config)
        left_out = network.load_state_dict(tensors, strict=False)
        assert not left_out.unexpected_keys and left_out.missing_keys in ([], ['pos_embed.pos_embed']), left_out
        for block in network.transformer_blocks:
            block.norm1.emb.class_embedder.dropout_prob = 0.0  # each block would drop other rows
        super().__init__(network.train(), drop)
        self.steps = steps_of(task.drawn_by.sampler)
        self.scheduler = DDIMScheduler(TIMES, clip_sample=False, set_alpha_to_one=True, timestep_spacing='trailing')

    def noised(self, x0: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        found: Tensor = self.scheduler.add_noise(x0, noise, index)
        return found

    def times(self) -> list[Any]:
        self.scheduler.set_timesteps(self.steps)
        return list(self.scheduler.timesteps)

    def previous(self, noise: Tensor, index: Any, z: Tensor) -> Tensor:
        found: Tensor = self.scheduler.step(noise, index, z).prev_sample
        return found

    def noise(self, z: Tensor, index: Tensor, category: Tensor) -> Tensor:
        found: Tensor = self.network(z, timestep=index, class_labels=category).sample
        return found

    def of_ours(self, values: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
        return dit_tensors(values, table)

    def gradients(self) -> dict[str, Tensor]:
        """Of the layers that each block has again, the sum over the blocks under all their names."""
        found = super().gradients()
        sums: dict[str, Tensor] = {}
        for name, value in found.items():
            if '.norm1.emb.' in name:
                leaf = name.split('.emb.')[1]
                sums[leaf] = sums[leaf] + value if leaf in sums else value
        return {name: sums[name.split('.emb.')[1]] if '.norm1.emb.' in name else value for name, value in found.items()}
