"""Train a tokenizer against a discriminator: VQGAN's recipe and its relatives, with one generator forward per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.errors import ConfigError, listing
from vq.core.records import Batch, Losses, Outputs, to_float
from vq.interfaces import Discriminator, DiscriminatorPenalty, GeneratorWeight, Loss, Tokenizer
from vq.nn.precision import no_autocast
from vq.nn.running_statistics import join_running_statistics, unjoined_norms
from vq.registries import VQDiscriminatorLossRegistry, VQGeneratorLossRegistry, VQTaskRegistry
from vq.tasks.image_tokenization.task import AutoEncoderOutput, ImageTokenization

GeneratorLoss = Annotated[Callable[[Tensor], Tensor], VQGeneratorLossRegistry]
DiscriminatorLoss = Annotated[Callable[[Tensor, Tensor], Tensor], VQDiscriminatorLossRegistry]


class Judgement(NamedTuple):
    """The outputs of a ``Critic``."""

    fake: Tensor  # logits of reconstructions
    real: Tensor | None  # logits of images
    penalties: dict[str, Tensor]


class Ends(NamedTuple):
    """Which trained tensors the gradient of a loss reaches."""

    at_leaf: bool  # the reconstruction
    elsewhere: bool  # any other tensor, such as weights of the encoder


class Critic(nn.Module):
    """The root the discriminator's optimizer owns. One forward computes logits and penalties, as DDP and FSDP need it."""

    def __init__(self, discriminator: Discriminator, penalties: nn.ModuleDict) -> None:
        super().__init__()
        self.discriminator, self.penalties = discriminator, penalties

    def forward(self, fake: Tensor, real: Tensor | None = None, due: tuple[str, ...] = ()) -> Judgement:
        """Images (B, 3, H, W). With ``real``, also the penalties named in ``due``. Real images go first, as in VQGAN."""
        real_logits = None if real is None else self.discriminator(real)
        fake_logits = self.discriminator(fake)
        found = {name: self.penalties[name](self.discriminator, real, real_logits, fake_logits) for name in due}
        return Judgement(fake_logits, real_logits, found)


@VQTaskRegistry.register_()
class AdversarialTokenization(ImageTokenization):
    """Two optimizers, ``tokenizer`` and ``discriminator``.

    tokenizer:      pixel losses + quantizer losses + weight * generator_loss(D(x'))
    discriminator:  discriminator_weight * discriminator_loss(D(x), D(x')) + penalties

    The autoencoder runs forward once. The discriminator learns from the same reconstruction x', detached. Gradients of the
    pixel losses and of the adversarial loss are computed at x' and added there. So the perceptual network and the
    discriminator run backward once, and the tokenizer's step leaves no gradients in the discriminator's parameters.

    A pixel loss that also depends on other trained tensors (a regulariser of the encoder's weights, added by a subclass)
    also runs backward with the total. The adaptive weight balances gradients at x' only.

    - ``discriminator_start``: number of first steps without the discriminator.
    - ``warmup``: steps after ``discriminator_start`` in which the discriminator trains and the adversarial loss is still off.
    - ``ramp``: steps after these, over which the weight of the adversarial loss grows linearly to ``weight``.
    """

    evaluated_as: ClassVar[str | None] = 'ImageTokenization'

    def __init__(
        self,
        tokenizer: Tokenizer,
        losses: dict[str, Loss],
        discriminator: Discriminator,
        generator_loss: GeneratorLoss,
        discriminator_loss: DiscriminatorLoss,
        weight: GeneratorWeight,
        penalties: dict[str, DiscriminatorPenalty] | None = None,
        discriminator_weight: float = 1.0,
        discriminator_start: int = 0,
        warmup: int = 0,
        ramp: int = 0,
    ) -> None:
        super().__init__(tokenizer, losses)
        if min(discriminator_start, warmup, ramp) < 0:
            raise ConfigError(
                f'discriminator_start is {discriminator_start}, warmup {warmup}, ramp {ramp}',
                'Give numbers of steps from 0 up.',
            )
        unknown = sorted(set(weight.losses or ()) - set(losses))
        if unknown:
            raise ConfigError(f'the generator weight names the losses {unknown}', f'There are: {listing(losses) or "none"}.')
        if weight.by_gradients and not losses:
            raise ConfigError(
                'an adaptive weight needs a pixel loss to compare with', "Add one, or use dict(type='FixedWeight')."
            )
        self.discriminator, self.penalties = discriminator, nn.ModuleDict(penalties or {})
        self.generator_loss, self.discriminator_loss, self.weight = generator_loss, discriminator_loss, weight
        self.discriminator_weight, self.discriminator_start = discriminator_weight, discriminator_start
        self.warmup, self.ramp = warmup, ramp
        self._norms = unjoined_norms(discriminator)
        self._critic = (Critic(discriminator, self.penalties),)  # in a tuple, so that nn.Module does not register it twice
        self._roots = {
            'tokenizer': self._make_root(with_features=weight.by_gradients),
            'discriminator': self._critic[0],
        }

    def training_only_prefixes(self) -> tuple[str, ...]:
        return ('discriminator.', 'penalties.')

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        image = to_float(batch.image)
        coded = self._code(roots['tokenizer'], image)
        self.outputs = Outputs(coded.reconstruction.detach(), coded.tokens)
        yield 'tokenizer', self._tokenizer_losses(image, coded, self._strength(step))
        if step > self.discriminator_start:
            yield (
                'discriminator',
                self._discriminator_losses(roots['discriminator'], image, coded.reconstruction.detach(), step),
            )

    def _strength(self, step: int) -> float:
        """The factor on the weight of the adversarial loss in this step (counted from 1)."""
        active_steps = step - self.discriminator_start - self.warmup
        return 0.0 if active_steps <= 0 else min(1.0, active_steps / max(self.ramp, 1))

    # the tokenizer's step

    def _tokenizer_losses(self, image: Tensor, coded: AutoEncoderOutput, strength: float) -> Losses:
        if strength == 0:
            return self._collect(image, coded)
        losses = Losses()
        # a leaf in place of the reconstruction: gradients stop here, and no parameter of a loss network gets one
        leaf = coded.reconstruction.detach().float().requires_grad_()
        adversarial = self.generator_loss(self._critic[0](leaf).fake)
        self._add_pixel_losses(losses, leaf if self.weight.by_gradients else coded.reconstruction, image)
        scale = 2.0 ** round(math.log2(leaf.numel()))  # gradients of means are tiny: unscaled they underflow in fp16
        adversarial_gradient = gradient_at(leaf, adversarial, scale)
        if self.weight.by_gradients:
            ends = {name: gradient_ends(value, leaf, self.losses) for name, value in losses.values.items()}
            weight, pixels = self._adaptive_weight(losses, leaf, ends, adversarial_gradient, coded, scale)
            losses.values = {name: value if ends[name].elsewhere else value.detach() for name, value in losses.values.items()}
        else:
            weight, pixels = self.weight(None), torch.zeros((), device=leaf.device)
        if self.ramp > 1:  # a tensor in every step, also at strength 1: a changing Python number makes compilers recompile
            weight = weight * torch.tensor([strength]).to(leaf.device, non_blocking=True)[0]
        losses.add('generator', adversarial.detach(), weight)
        losses.add_gradient(coded.reconstruction, (pixels + weight * adversarial_gradient) / scale)
        self._add_quantizer_losses(losses, coded)
        if isinstance(weight, Tensor):
            losses.notes['generator_weight'] = weight.detach()
        return losses

    def _adaptive_weight(
        self,
        losses: Losses,
        leaf: Tensor,
        ends: Mapping[str, Ends],
        adversarial_gradient: Tensor,
        coded: AutoEncoderOutput,
        scale: float,
    ) -> tuple[Tensor | float, Tensor]:
        """The weight, and the gradient of all pixel losses at the reconstruction (times ``scale``)."""
        assert coded.features is not None
        balanced = set(losses.values if self.weight.losses is None else self.weight.losses)
        terms = {name: value * losses.weights[name] for name, value in losses.values.items() if ends[name].at_leaf}
        compared = [terms[name] for name in terms if name in balanced]
        if not compared:
            raise ConfigError(
                f'the adaptive weight compares with {listing(sorted(balanced))}, and none of these depends on the image',
                "Name a pixel loss in the weight's losses, or use dict(type='FixedWeight').",
            )
        again = any(ends[name].elsewhere for name in terms)  # keep the graph: the total also runs backward through it
        numerator = gradient_at(leaf, torch.stack(compared).sum(), scale, again)
        others = [terms[name] for name in terms if name not in balanced]
        pixels = numerator + gradient_at(leaf, torch.stack(others).sum(), scale, again) if others else numerator
        gradients = self.tokenizer.decoder.last_layer_gradients(
            coded.features.detach(), coded.reconstruction.detach(), torch.stack([numerator, adversarial_gradient])
        )
        averaged = collectives.all_reduce(gradients) / (collectives.size() * scale)
        return self.weight(averaged), pixels

    # the discriminator's step

    def _discriminator_losses(self, critic: nn.Module, image: Tensor, fake: Tensor, step: int) -> Losses:
        done = step - self.discriminator_start - 1
        due = tuple(name for name, penalty in self.penalties.items() if done % penalty.interval == 0)  # type: ignore[operator]
        judgement: Judgement = critic(fake, image, due)
        assert judgement.real is not None
        losses = Losses()
        losses.add('discriminator', self.discriminator_loss(judgement.real, judgement.fake), self.discriminator_weight)
        for name, value in judgement.penalties.items():
            penalty = self.penalties[name]
            losses.add(name, value, penalty.weight * penalty.interval)  # type: ignore[operator,arg-type]
        losses.notes['logits_real'] = judgement.real.detach().float().mean()
        losses.notes['logits_fake'] = judgement.fake.detach().float().mean()
        return losses

    def update(self, ok: Tensor | None = None) -> None:
        super().update(ok)
        join_running_statistics(self._norms)
        for penalty in self.penalties.values():
            assert isinstance(penalty, DiscriminatorPenalty)
            penalty.update(ok)


def gradient_at(leaf: Tensor, value: Tensor, scale: float, retain_graph: bool = False) -> Tensor:
    """``scale`` times the gradient of the scalar ``value`` at ``leaf``."""
    with no_autocast(leaf.device):
        (gradient,) = torch.autograd.grad(value, leaf, torch.full_like(value, scale), retain_graph=retain_graph)
    return gradient


def gradient_ends(value: Tensor, leaf: Tensor, networks: nn.Module) -> Ends:
    """Which tensors the gradient of ``value`` reaches, read from its graph. Parameters of ``networks`` do not count."""
    at_leaf = elsewhere = False
    nodes = [torch.autograd.graph.get_gradient_edge(value).node] if value.requires_grad else []
    seen = set(nodes)
    while nodes and not (at_leaf and elsewhere):
        node = nodes.pop()
        after = node.next_functions
        variable = None if after else getattr(node, 'variable', None)  # the leaf tensor of an AccumulateGrad node
        if variable is leaf:
            at_leaf = True
        elif isinstance(variable, Tensor):
            elsewhere = elsewhere or all(variable is not parameter for parameter in networks.parameters())
        new = [other for other, _ in after if other is not None and other not in seen]
        seen.update(new)
        nodes += new
    return Ends(at_leaf, elsewhere)
