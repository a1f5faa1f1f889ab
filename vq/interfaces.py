"""What each kind of part promises. Annotations import these, never implementations; registries build by them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.core.phases import MOVED_SETTINGS
from vq.core.records import Batch, Latent, Losses, Outputs, Predicted, Quantized, SampleRequest

R = TypeVar('R')  # what a callback knows of its runner, see vq/runners/protocol.py


class Pretrained:
    """Two phases: constructors never read a file; ``load_pretrained`` does, once, after building."""

    frozen: bool = True  # never trained: stays out of checkpoints, which record the hashes of its files instead

    def load_pretrained(self) -> None:
        raise NotImplementedError

    def pretrained_files(self) -> list[Path]:
        """The files it reads; checkpoints that leave the part out record their hashes."""
        raise NotImplementedError


class Encoder(nn.Module):
    """image (B, 3, H, W) float in [-1, 1] -> features (B, out_channels, h, w)."""

    out_channels: int
    downsampling: int  # H / h


class Connector(nn.Module):
    """features (B, in_channels, h, w) -> features (B, out_channels, h, w)."""

    in_channels: int
    out_channels: int


class Decoder(nn.Module):
    """code vectors (B, in_channels, h, w) -> image (B, 3, H, W), about [-1, 1]: a body, then one last layer.

    The last layer stands apart because adversarial losses are balanced by the gradients at its weight.
    """

    in_channels: int

    def features(self, z: Tensor) -> Tensor:
        """What the last layer takes."""
        raise NotImplementedError

    def project(self, features: Tensor) -> Tensor:
        """The last layer: features -> image."""
        raise NotImplementedError

    def last_layer_gradients(self, features: Tensor, image: Tensor, gradients: Tensor) -> Tensor:
        """Gradients of n losses at the image, (n, B, 3, H, W) -> at the last layer's weight, (n, *weight.shape): in closed
        form, from what the layer took and gave, all detached. No graph is walked; the weight, maybe a shard, is not read."""
        raise NotImplementedError

    def forward(self, z: Tensor) -> Tensor:
        return self.project(self.features(z))


class Discriminator(nn.Module):
    """image (B, 3, H, W) float in [-1, 1] -> logits, one per image or per patch: high for real images. Real and
    reconstructed images come in separate calls, so that nothing couples the two batches."""


class DiscriminatorPenalty(nn.Module):
    """What the discriminator's loss is regularised by, every ``interval`` steps; its weight is multiplied by the interval."""

    weight: float
    interval: int = 1
    second_order: bool = False  # differentiates a gradient

    def forward(self, discriminator: Discriminator, real: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """``real`` are the images (B, 3, H, W), detached."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Once per step: state that moves without gradients, unless ``ok`` (a bool on the device) is false."""


class GeneratorWeight(nn.Module):
    """The weight of the adversarial term beside the losses on pixels."""

    by_gradients: bool = False  # whether it is asked with gradients at the decoder's last layer
    losses: Sequence[str] | None = None  # which pixel losses are in the numerator, None for all

    def forward(self, gradients: Tensor | None) -> Tensor | float:
        """``gradients`` (2, *weight.shape): of the pixel losses and of the adversarial term, averaged over ranks."""
        raise NotImplementedError


class Quantizer(nn.Module):
    """features (..., C) -> code vectors (..., C) and tokens (...); fp32 inside whatever the autocast.

    ``forward`` in training only *observes* (sums, counts); ``update`` changes codes once per optimizer step, with one
    all-reduce, and leaves every rank with the same bits. ``eval`` issues no collective.
    """

    embedding_dim: int
    codebook_size: int  # tokens are below it
    codebook_sizes: tuple[int, ...] = ()  # where the last axis of tokens has several codebooks: the size of each
    updates_in_forward: bool = False  # True: refuses gradient accumulation and activation checkpointing
    loss_weights: Mapping[str, float] = {}  # of the raw losses in Quantized.losses; a name that is missing weighs 1

    @property
    def feature_dim(self) -> int:
        """Channels of the features it takes, where they are not those of the codes."""
        return self.embedding_dim

    def forward(self, features: Tensor) -> Quantized:
        raise NotImplementedError

    def lookup(self, tokens: Tensor) -> Tensor:
        """tokens (...) -> code vectors (..., C), exactly those of ``forward`` in eval."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Apply what was observed since the last call, unless ``ok`` (a bool on the device) is false."""

    @property
    def bits(self) -> float:
        """Bits per token; where a feature has several, of all of them."""
        raise NotImplementedError

    def token_shape(self, cells: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tokens of features (*cells, C)."""
        return cells


class CodebookUpdate(nn.Module):
    """How a codebook moves besides by gradient: see ``vq/quantizers/updates/``."""

    in_forward: bool = False


class Tokenizer(nn.Module):
    """image -> latent -> tokens -> image. Continuous tokenizers stop at the latent."""

    codebook_size: int  # 0: continuous, there are no tokens
    can_decode: bool
    decoder: Decoder  # of those that can decode

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Where the last axis of tokens has several codebooks: the size of each."""
        return ()

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Of the raw losses in Quantized.losses; a name that is missing weighs 1."""
        return {}

    def encode(self, image: Tensor) -> Latent:
        raise NotImplementedError

    def quantize(self, latent: Latent) -> Quantized:
        raise NotImplementedError

    def code(self, latent: Latent) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """What the decoder learns from, (B, C, h, w); tokens, if there are any; losses, bare."""
        quantized = self.quantize(latent)
        return quantized.z, quantized.tokens, quantized.losses

    def decode(self, z: Tensor) -> Tensor:
        """Code vectors (B, C, h, w) -> image (B, 3, H, W) float."""
        raise NotImplementedError

    def decoder_features(self, z: Tensor) -> Tensor:
        """Code vectors -> what ``decoder.project`` makes the image of, for tokenizers trained adversarially."""
        raise NotImplementedError

    def lookup(self, tokens: Tensor) -> Tensor:
        """tokens (B, *token_shape) -> code vectors (B, C, h, w)."""
        raise NotImplementedError

    def token_shape(self, image_size: int) -> tuple[int, ...]:
        raise NotImplementedError

    def latent_shape(self, image_size: int) -> tuple[int, ...]:
        """(C, h, w) of what is decoded."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Once per optimizer step: codebook updates."""

    @torch.no_grad()
    def tokenize(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) float in [-1, 1] -> tokens int64 (B, *token_shape)."""
        return self.quantize(self.encode(image)).tokens

    @torch.no_grad()
    def detokenize(self, tokens: Tensor) -> Tensor:
        """tokens -> image (B, 3, H, W) float."""
        return self.decode(self.lookup(tokens))


class CausalNetwork(nn.Module):
    """Embeddings (B, T, dim) -> logits (B, T, vocabulary) of the next token: position t sees the positions 0 to t."""

    dim: int
    vocabulary: int  # ids that can be embedded, and logits
    length: int  # positions at most

    def embed(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, dim). Apart from ``forward``: a sequence can begin with a class, which is not a token."""
        raise NotImplementedError

    def forward(self, embedded: Tensor) -> Tensor:
        raise NotImplementedError

    def make_cache(self, rows: int, length: int) -> Any:
        """Room for the keys and values of ``length`` positions, on the device and in the precision of the network."""
        raise NotImplementedError

    def step(self, embedded: Tensor, start: int, cache: Any) -> Tensor:
        """Embeddings (B, t, dim) of the positions from ``start`` on, those before are cached -> logits (B, V) of the last."""
        raise NotImplementedError


class Generator(nn.Module):
    """Learns the tokens (B, *token_shape) of images of a category, and draws new ones."""

    token_shape: tuple[int, ...]
    codebook_size: int  # tokens are below it
    classes: int  # categories are below it; 0: it knows of none
    network: nn.Module  # does the work, in training by its ``forward``

    def forward(self, tokens: Tensor, category: Tensor | None) -> Predicted:
        """In training it draws what the method draws (labels to drop, positions to mask) from torch's global generator."""
        raise NotImplementedError

    def drawable(self, predicted: Predicted) -> Tensor:
        """Of the logits, those of the tokens that each position may hold, (B, L, K)."""
        return predicted.logits

    def generate(
        self, request: SampleRequest, sampler: Callable[[Tensor, Tensor], Tensor], guidance: Callable[..., float]
    ) -> Tensor:
        """New tokens (B, *token_shape) int64. See also ``vq/sampling/tokens.py`` and ``vq/sampling/guidance.py``."""
        raise NotImplementedError


class Loss(nn.Module):
    """A named term; its weight is applied by ``Losses``."""

    weight: float

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError


class Task(nn.Module):
    """The model a runner drives: a training step per optimizer, a validation step, roots to optimize.

    ``outputs`` holds what the last training step made, detached, for callbacks that count tokens or draw pictures.
    """

    outputs: Outputs
    evaluated_as: ClassVar[str | None] = None  # the task a validator builds in place of this one

    def roots(self) -> dict[str, nn.Module]:
        """Optimizer name -> the module it owns. Each is wrapped on its own, and called through ``forward`` only."""
        raise NotImplementedError

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield (optimizer name, losses) in order; each is stepped before the next is asked for."""
        raise NotImplementedError

    def validation_step(self, batch: Batch) -> Outputs:
        raise NotImplementedError

    def forward_once(self, batch: Batch) -> None:
        """What is counted as the operations for an image."""
        self.validation_step(batch)

    def update(self, ok: Tensor | None = None) -> None:
        """After all optimizers of a step: codebooks and other state that moves without gradients."""

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Key prefixes of parts that stay out of checkpoints (their files are recorded by hash instead)."""
        return tuple(f'{name}.' for name, part in self.named_modules() if isinstance(part, Pretrained) and part.frozen)

    def training_only_prefixes(self) -> tuple[str, ...]:
        """Key prefixes of parts that only training needs: not averaged, and files of weights may come without them."""
        return ()


class Sample(dict[str, Any]):
    """One sample of a dataset: ``image`` (H, W, 3) uint8 array, ``id``, and optionally category, text, path, extra."""


class Dataset:
    """A split of a collection of images. ``load`` may raise ``vq.data.decode.BadImage``."""

    name: str
    split: str
    categories: Sequence[str] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def id_of(self, index: int) -> str:
        """Stable, unique, and known without opening the image."""
        raise NotImplementedError

    def load(self, index: int, stream: random.Random) -> Sample:
        """The transformed sample; every random choice is drawn from ``stream``."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """A short digest of what the split holds: changes when files come, go or are renamed."""
        raise NotImplementedError


class Features(NamedTuple):
    """What a feature network says of images; metrics read from it, whatever the network was."""

    pooled: Tensor  # (B, D) fp32
    logits: Tensor | None = None  # (B, classes)
    spatial: Tensor | None = None  # (B, S)


class FeatureNetwork(nn.Module, Pretrained):
    """uint8 images (B, 3, H, W) of any size -> ``Features``. Frozen, and always in evaluation."""

    dimension: int  # D

    @property
    def description(self) -> dict[str, str]:
        """What its figures depend on besides the weights: the network, its preprocessing, its precision."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> FeatureNetwork:
        return super().train(False)

    def forward(self, image: Tensor) -> Features:
        raise NotImplementedError


class Metric:
    """Accumulates over a validation pass. ``update`` never waits for the device; ``compute`` may communicate."""

    network: nn.Module | None = None  # a frozen one that it looks through: the runner loads it and moves it to the device

    def reset(self) -> None:
        raise NotImplementedError

    def update(self, batch: Batch, outputs: Outputs) -> None:
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """After ``compute``: what its figures depend on beyond their names, for whoever reads the result later."""
        return {}


class Schedule:
    """A factor on a base value over the steps of a run."""

    def bind(self, iters: int) -> None:
        """Lengths that were left open become the length of the run."""

    def __call__(self, step: int) -> float:
        raise NotImplementedError


class Callback(Generic[R]):
    """What happens around the steps of a runner R and may be left out. Hooks run in the order of the callbacks."""

    phase: ClassVar[str | None] = None  # where it stands among them: see vq/core/phases.py
    elsewhere: ClassVar[Mapping[str, str]] = MOVED_SETTINGS
    runner: R

    def bind(self, runner: R) -> None:
        self.runner = runner

    def before_run(self) -> None: ...
    def before_step(self) -> None: ...
    def after_losses(self, name: str, losses: Losses) -> None: ...
    def optimize(self, name: str) -> None: ...  # gradients are complete; their norm, clipping and the step follow
    def after_batch(self, batch: Batch, outputs: Outputs) -> None: ...
    def after_step(self) -> None: ...  # what a checkpoint holds may change here, and no later
    def save(self) -> None: ...  # after ``after_step`` of all: checkpoints
    def inspect(self) -> None: ...  # after ``save`` of all: pictures, evaluations; no trace in the state of the run
    def after_run(self) -> None: ...
    def on_error(self, error: BaseException) -> None: ...

    def state_dict(self) -> dict[str, Any]:  # survives a restart, the same on all ranks; loads with ``weights_only=True``
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def rank_state_dict(self) -> dict[str, Any]:  # survives a restart, this rank's own; lost when their number changes
        return {}

    def load_rank_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Strategy:
    """Device, precision, wrapping, collectives, launch. Models and runners never ask which one it is."""

    name: ClassVar[str]
    device: torch.device
    world_size: int
    rank: int
    accumulate: int
    clip: float | None
    scaler: Any  # of fp16, with state_dict and load_state_dict; None otherwise
    fused: bool  # whether torch's fused optimizers work on the device
    gradients_may_overflow: bool  # fp16: an infinite gradient is the scaler's business, not an error

    def start(self) -> None:
        """Take the device and set up communication; every other method comes after this one."""
        raise NotImplementedError

    def stop(self) -> None:
        """Give back what ``start`` took."""
        raise NotImplementedError

    def shard(self, roots: Mapping[str, nn.Module]) -> None:
        """Split parameters over ranks where the strategy does that: before ``place`` and ``trainable``, only to train."""
        raise NotImplementedError

    def place(self, task: Task) -> None:
        """Move the task to the device, in the memory format of the strategy."""
        raise NotImplementedError

    def trainable(self, root: nn.Module) -> list[nn.Parameter]:
        """What the optimizer of a root gets: its parameters that learn, or this rank's parts of them, in their order."""
        raise NotImplementedError

    def origin(self, parameter: Tensor) -> Tensor:
        """The distributed tensor of which an optimizer's parameter is this rank's part; the parameter itself if whole."""
        raise NotImplementedError

    def gradient_norm(self, parameters: list[Tensor]) -> Tensor:
        """The L2 norm over all gradients of an optimizer's parameters: one scalar on the device, equal on all ranks."""
        raise NotImplementedError

    def wrap(self, roots: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """What the task calls in place of its roots."""
        raise NotImplementedError

    def to_device(self, batch: Batch) -> Batch:
        raise NotImplementedError

    def whole(self) -> AbstractContextManager[None]:
        """Around evaluation in training: parameters are whole, and ranks may call the model as often as they like."""
        raise NotImplementedError

    def as_input(self, value: float) -> float | Tensor:
        """A number that changes from step to step, in the form that does not recompile the step."""
        raise NotImplementedError

    def before_reading(self) -> None:
        """Called before the host reads several results."""
        raise NotImplementedError

    def joined(self, values: list[Tensor]) -> Tensor:
        """Concatenate 1-d results that the host reads next."""
        raise NotImplementedError

    def adapt(self, optimizer: Optimizer) -> None:
        """Set how a new optimizer computes on the device."""
        raise NotImplementedError

    def autocast(self) -> AbstractContextManager[object]:
        """Around forward passes; backward stays outside."""
        raise NotImplementedError

    def micro_step(self, wrapped: Mapping[str, nn.Module], last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro-batch; only the last one communicates gradients."""
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        raise NotImplementedError

    def unscale(self, optimizer: Optimizer) -> None:
        """Make gradients final: of the unscaled loss, of all ranks, where the optimizer looks for them."""
        raise NotImplementedError

    def step(self, optimizer: Optimizer, ok: Tensor) -> None:
        """Step if ``ok`` (a bool on the device), then forget the gradients. Never waits for the device."""
        raise NotImplementedError

    def finish_step(self) -> None:
        """After all optimizers of a step."""
        raise NotImplementedError

    def agree(self, flag: bool) -> bool:
        """Whether any rank raised its flag, the same answer on all; may come a step late, never waits for the device."""
        raise NotImplementedError


class Runner:
    """Something a command runs: ``run`` does its whole work under ``work_dir``."""

    work_dir: Path

    def run(self) -> Any:
        raise NotImplementedError
