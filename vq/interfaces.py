"""The interface of each kind of part. Annotations import these classes, never implementations; registries build by them."""

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

R = TypeVar('R')  # the protocol by which a callback uses its runner, see vq/runners/protocol.py


class Pretrained:
    """Two phases: constructors never read a file; ``load_pretrained`` does, once, after building."""

    frozen: bool = True  # not trained: checkpoints leave the part out, and record the hashes of its files instead

    def load_pretrained(self) -> None:
        raise NotImplementedError

    def pretrained_files(self) -> list[Path]:
        """The files that ``load_pretrained`` reads. Checkpoints record their hashes if the part is frozen."""
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

    The last layer is separate because ``AdaptiveWeight`` compares gradients at the weight of this layer.
    """

    in_channels: int

    def features(self, z: Tensor) -> Tensor:
        """The input of the last layer."""
        raise NotImplementedError

    def project(self, features: Tensor) -> Tensor:
        """The last layer: features -> image."""
        raise NotImplementedError

    def last_layer_gradients(self, features: Tensor, image: Tensor, gradients: Tensor) -> Tensor:
        """Gradients of n losses at the image (n, B, 3, H, W) -> at the last layer's weight (n, *weight.shape): in closed form,
        from the detached input and output of the layer. Without autograd; the weight, which can be a shard, is not read."""
        raise NotImplementedError

    def forward(self, z: Tensor) -> Tensor:
        return self.project(self.features(z))


class Discriminator(nn.Module):
    """image (B, 3, H, W) float in [-1, 1] -> logits, one per image or per patch: high for real images. Real and
    reconstructed images are passed in separate calls, so that the two batches do not influence each other."""


class DiscriminatorPenalty(nn.Module):
    """A regulariser of the discriminator, added every ``interval`` steps with its weight multiplied by the interval."""

    weight: float
    interval: int = 1
    second_order: bool = False  # whether it needs second derivatives

    def forward(self, discriminator: Discriminator, real: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """``real`` are the images (B, 3, H, W), detached."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Called once per step: update state without gradients, unless ``ok`` (a bool on the device) is false."""


class GeneratorWeight(nn.Module):
    """The weight of the adversarial term relative to the pixel losses."""

    by_gradients: bool = False  # whether ``forward`` needs gradients at the decoder's last layer
    losses: Sequence[str] | None = None  # the pixel losses in the numerator, None for all

    def forward(self, gradients: Tensor | None) -> Tensor | float:
        """``gradients`` (2, *weight.shape): of the pixel losses and of the adversarial term, averaged over ranks."""
        raise NotImplementedError


class Quantizer(nn.Module):
    """features (..., C) -> code vectors (..., C) and tokens (...); computed in fp32, also under autocast.

    In training ``forward`` only *observes* (sums, counts), unless ``updates_in_forward``. ``update`` changes the codes once
    per optimizer step, by all-reduces, bitwise equally on every rank. In eval mode no collective is issued.
    """

    embedding_dim: int
    codebook_size: int  # tokens are below it
    codebook_sizes: tuple[int, ...] = ()  # if the last axis of tokens has several codebooks: the size of each
    updates_in_forward: bool = False  # True: refuses gradient accumulation and activation checkpointing
    loss_weights: Mapping[str, float] = {}  # of the losses in Quantized.losses; 1 for names that are missing

    @property
    def feature_dim(self) -> int:
        """Channels of the input features, by default those of the codes."""
        return self.embedding_dim

    def forward(self, features: Tensor) -> Quantized:
        raise NotImplementedError

    def lookup(self, tokens: Tensor) -> Tensor:
        """tokens (...) -> code vectors (..., C), exactly those of ``forward`` in eval."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Update the codes by the observations since the last call, unless ``ok`` (a bool on the device) is false."""

    @property
    def bits(self) -> float:
        """Bits per token; with several tokens per feature, the sum over them."""
        raise NotImplementedError

    def token_shape(self, cells: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tokens of features (*cells, C)."""
        return cells


class CodebookUpdate(nn.Module):
    """A rule that moves a codebook outside of gradient descent: see ``vq/quantizers/updates/``."""

    in_forward: bool = False


class Tokenizer(nn.Module):
    """image -> latent -> tokens -> image. Continuous tokenizers stop at the latent."""

    codebook_size: int  # 0: continuous, without tokens
    can_decode: bool
    decoder: Decoder  # only if ``can_decode``

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """If the last axis of tokens has several codebooks: the size of each."""
        return ()

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weights of the losses in Quantized.losses; 1 for names that are missing."""
        return {}

    def encode(self, image: Tensor) -> Latent:
        raise NotImplementedError

    def quantize(self, latent: Latent) -> Quantized:
        raise NotImplementedError

    def code(self, latent: Latent) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """(the input z of ``decode`` (B, C, h, w), tokens or None, unweighted losses)."""
        quantized = self.quantize(latent)
        return quantized.z, quantized.tokens, quantized.losses

    def decode(self, z: Tensor) -> Tensor:
        """Code vectors (B, C, h, w) -> image (B, 3, H, W) float."""
        raise NotImplementedError

    def decoder_features(self, z: Tensor) -> Tensor:
        """Code vectors -> the input of ``decoder.project``, for tokenizers trained adversarially."""
        raise NotImplementedError

    def lookup(self, tokens: Tensor) -> Tensor:
        """tokens (B, *token_shape) -> code vectors (B, C, h, w)."""
        raise NotImplementedError

    def token_shape(self, image_size: int) -> tuple[int, ...]:
        raise NotImplementedError

    def latent_shape(self, image_size: int) -> tuple[int, ...]:
        """(C, h, w) of the input z of ``decode``."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Called once per optimizer step: updates codebooks."""

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
    vocabulary: int  # number of ids that can be embedded, and of logits
    length: int  # largest number of positions

    def embed(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, dim). Apart from ``forward``: a sequence can begin with a class, which is not a token."""
        raise NotImplementedError

    def forward(self, embedded: Tensor) -> Tensor:
        raise NotImplementedError

    def make_cache(self, rows: int, length: int) -> Any:
        """An empty cache for keys and values of ``length`` positions, with the device and precision of the network."""
        raise NotImplementedError

    def step(self, embedded: Tensor, start: int, cache: Any) -> Tensor:
        """Embeddings (B, t, dim) from position ``start`` on, earlier positions in ``cache`` -> logits (B, V) of the last."""
        raise NotImplementedError


class Generator(nn.Module):
    """Learns the tokens (B, *token_shape) of images of a category, and samples new tokens."""

    token_shape: tuple[int, ...]
    codebook_size: int  # tokens are below it
    classes: int  # categories are below it; 0: unconditional
    network: nn.Module  # the transformer; training calls its ``forward``

    def forward(self, tokens: Tensor, category: Tensor | None) -> Predicted:
        """In training, random choices (labels to drop, positions to mask) are drawn from torch's global generator."""
        raise NotImplementedError

    def drawable(self, predicted: Predicted) -> Tensor:
        """The logits of the tokens that each position can take, (B, L, K)."""
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
    """The model that a runner trains: a training step per optimizer, a validation step, roots to optimize.

    ``outputs`` holds the detached outputs of the last training step, for callbacks that count tokens or save images.
    """

    outputs: Outputs
    evaluated_as: ClassVar[str | None] = None  # the task a validator builds in place of this one

    def roots(self) -> dict[str, nn.Module]:
        """Optimizer name -> the module it trains. Each module is wrapped separately, and called through ``forward`` only."""
        raise NotImplementedError

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield (optimizer name, losses) in order; each optimizer is stepped before the generator resumes."""
        raise NotImplementedError

    def validation_step(self, batch: Batch) -> Outputs:
        raise NotImplementedError

    def forward_once(self, batch: Batch) -> None:
        """The computation that is counted as the operations per image."""
        self.validation_step(batch)

    def update(self, ok: Tensor | None = None) -> None:
        """Called after all optimizers of a step: updates codebooks and other state without gradients."""

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Key prefixes of parts that stay out of checkpoints (the hashes of their files are recorded instead)."""
        return tuple(f'{name}.' for name, part in self.named_modules() if isinstance(part, Pretrained) and part.frozen)

    def training_only_prefixes(self) -> tuple[str, ...]:
        """Key prefixes of parts that only training needs: left out of the EMA, and optional in files of weights."""
        return ()


class Sample(dict[str, Any]):
    """One sample of a dataset: ``image`` (H, W, 3) uint8 array, ``id``, and optionally category, text, path, extra."""


class Dataset:
    """A split of a collection of images. ``load`` can raise ``vq.data.decode.BadImage``."""

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
        """A short digest of the contents of the split: it changes if files are added, removed or renamed."""
        raise NotImplementedError


class Features(NamedTuple):
    """The output of a feature network, in one form for all networks; metrics read it."""

    pooled: Tensor  # (B, D) fp32
    logits: Tensor | None = None  # (B, classes)
    spatial: Tensor | None = None  # (B, S)


class FeatureNetwork(nn.Module, Pretrained):
    """uint8 images (B, 3, H, W) of any size -> ``Features``. Frozen, and always in eval mode."""

    dimension: int  # D

    @property
    def description(self) -> dict[str, str]:
        """What metric values depend on besides the weights: the network, its preprocessing, its precision."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> FeatureNetwork:
        return super().train(False)

    def forward(self, image: Tensor) -> Features:
        raise NotImplementedError


class Metric:
    """Accumulates over a validation pass. ``update`` makes no host sync; ``compute`` may call collectives."""

    network: nn.Module | None = None  # its frozen feature network: the runner loads it and moves it to the device

    def reset(self) -> None:
        raise NotImplementedError

    def update(self, batch: Batch, outputs: Outputs) -> None:
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Called after ``compute``: the settings that the values depend on, to be recorded with the result."""
        return {}


class Schedule:
    """A factor on a base value over the steps of a run."""

    def bind(self, iters: int) -> None:
        """Set the lengths that were not given to ``iters``, the length of the run."""

    def __call__(self, step: int) -> float:
        raise NotImplementedError


class Callback(Generic[R]):
    """Optional work around the steps of a runner R. Hooks run in the order of the callbacks."""

    phase: ClassVar[str | None] = None  # its place in that order: see vq/core/phases.py
    elsewhere: ClassVar[Mapping[str, str]] = MOVED_SETTINGS
    runner: R

    def bind(self, runner: R) -> None:
        self.runner = runner

    def before_run(self) -> None: ...
    def before_step(self) -> None: ...
    def after_losses(self, name: str, losses: Losses) -> None: ...
    def optimize(self, name: str) -> None: ...  # gradients are complete; their norm, clipping and the step follow
    def after_batch(self, batch: Batch, outputs: Outputs) -> None: ...
    def after_step(self) -> None: ...  # the last hook that can change the state in a checkpoint
    def save(self) -> None: ...  # after all ``after_step``: checkpoints
    def inspect(self) -> None: ...  # after all ``save``: images, evaluations; must not change the state of the run
    def after_run(self) -> None: ...
    def on_error(self, error: BaseException) -> None: ...

    def state_dict(self) -> dict[str, Any]:  # in checkpoints, equal on all ranks; loads with ``weights_only=True``
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def rank_state_dict(self) -> dict[str, Any]:  # in checkpoints, one per rank; dropped if the number of ranks changes
        return {}

    def load_rank_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Strategy:
    """Device, precision, wrapping, collectives, launch. Models and runners do not depend on the kind of strategy."""

    name: ClassVar[str]
    device: torch.device
    world_size: int
    rank: int
    accumulate: int
    clip: float | None
    scaler: Any  # of fp16, with state_dict and load_state_dict; None otherwise
    fused: bool  # whether torch's fused optimizers work on the device
    gradients_may_overflow: bool  # fp16: the scaler handles infinite gradients, they are not errors

    def start(self) -> None:
        """Take the device and set up communication; called before every other method."""
        raise NotImplementedError

    def stop(self) -> None:
        """Release the resources of ``start``."""
        raise NotImplementedError

    def shard(self, roots: Mapping[str, nn.Module]) -> None:
        """Shard parameters over ranks, if the strategy does: before ``place`` and ``trainable``, for training only."""
        raise NotImplementedError

    def place(self, task: Task) -> None:
        """Move the task to the device, in the memory format of the strategy."""
        raise NotImplementedError

    def trainable(self, root: nn.Module) -> list[nn.Parameter]:
        """The parameters for the optimizer of a root: those that are trained, or this rank's shards of them, in order."""
        raise NotImplementedError

    def origin(self, parameter: Tensor) -> Tensor:
        """The distributed tensor that ``parameter`` of an optimizer is a shard of; ``parameter`` itself if not sharded."""
        raise NotImplementedError

    def gradient_norm(self, parameters: list[Tensor]) -> Tensor:
        """The L2 norm over all gradients of an optimizer's parameters: one scalar on the device, equal on all ranks."""
        raise NotImplementedError

    def wrap(self, roots: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """The wrapped roots, which the task calls in place of its roots."""
        raise NotImplementedError

    def to_device(self, batch: Batch) -> Batch:
        raise NotImplementedError

    def whole(self) -> AbstractContextManager[None]:
        """Around evaluation in training: parameters are unsharded, and each rank can call the model any number of times."""
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
        """Around forward and backward of one micro-batch; gradients are reduced over ranks only for the last one."""
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        raise NotImplementedError

    def unscale(self, optimizer: Optimizer) -> None:
        """Make gradients final: unscaled, reduced over ranks, and stored where the optimizer reads them."""
        raise NotImplementedError

    def step(self, optimizer: Optimizer, ok: Tensor) -> None:
        """Step if ``ok`` (a bool on the device), then clear the gradients. No host sync."""
        raise NotImplementedError

    def finish_step(self) -> None:
        """Called after all optimizers of a step."""
        raise NotImplementedError

    def agree(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank, equal on all ranks. Can be one step late; no host sync."""
        raise NotImplementedError


class Runner:
    """The object that a command runs: ``run`` does all its work under ``work_dir``."""

    work_dir: Path

    def run(self) -> Any:
        raise NotImplementedError
