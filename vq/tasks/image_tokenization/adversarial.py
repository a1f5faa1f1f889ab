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
from vq.tasks.image_tokenization.task import AutoEncoderOutput, ImageTokenization, scale_for
from vq.tasks.terms import check_names

GeneratorLoss = Annotated[Callable[[Tensor], Tensor], VQGeneratorLossRegistry]
DiscriminatorLoss = Annotated[Callable[[Tensor, Tensor], Tensor], VQDiscriminatorLossRegistry]
LOGITS = dict.fromkeys(('logits_real', 'logits_fake'), 'a mean of logits in the log')


class Judgement(NamedTuple):
    """The outputs of a ``Critic``."""

    fake: Tensor  # logits of reconstructions
    real: Tensor | None  # logits of images
    penalties: dict[str, Tensor]


class Ends(NamedTuple):
    """Which tensors the gradient of a loss reaches."""

    at_image: bool  # the reconstruction
    elsewhere: bool  # any trained tensor not through the reconstruction, such as weights of the encoder


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

    tokenizer:      image losses + weight * generator_loss(D(x')) + losses of the quantizer, on the latent, on parameters
    discriminator:  discriminator_weight * discriminator_loss(D(x), D(x')) + penalties

    The autoencoder runs forward once. The discriminator learns from the same reconstruction x', detached. Gradients of the
    image losses and of the adversarial loss are computed at x' and added there. So the perceptual network and the
    discriminator run backward once, and the tokenizer's step leaves no gradients in the discriminator's parameters.

    An adaptive weight balances the image losses with the adversarial loss, at the weight of the decoder's last layer. All
    other losses are carried through. An image loss that also depends on trained tensors other than x' is refused in the
    first step: that part of its gradient would be lost.

    - ``discriminator_start``: number of first steps without the discriminator.
    - ``warmup``: steps after ``discriminator_start`` in which the discriminator trains and the adversarial loss is still off.
    - ``ramp``: steps after these, over which the weight of the adversarial loss grows linearly to ``weight``.
    """

    evaluated_as: ClassVar[str | None] = 'ImageTokenization'
    own_terms: ClassVar[dict[str, str]] = {'generator': 'the adversarial loss', 'generator_weight': 'its weight in the log'}

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
        unknown = sorted(set(weight.losses or ()) - set(self.terms['image']))
        if unknown:
            raise ConfigError(
                f'the generator weight names the losses {unknown}',
                f'Losses on the image are: {listing(self.terms["image"]) or "none"}.',
            )
        if weight.by_gradients and not self.terms['image']:
            raise ConfigError(
                'an adaptive weight needs a loss on the image to compare with', "Add one, or use dict(type='FixedWeight')."
            )
        check_names(type(self).__name__, penalties or {}, {'discriminator': 'the loss of the discriminator', **LOGITS})
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
        losses = Losses()
        if strength == 0:
            self._add_image_terms(losses, coded.reconstruction, image)
            self._at_image(losses, coded.reconstruction)  # refuses here what it would refuse when the discriminator starts
            self._add_hidden_terms(losses, coded, image)
            self._add_other_terms(losses, coded.losses, coded.latent)
            return losses
        # a leaf in place of the reconstruction: gradients stop here, and no parameter of a loss network gets one
        leaf = coded.reconstruction.detach().float().requires_grad_()
        adversarial = self.generator_loss(self._critic[0](leaf).fake)
        self._add_image_terms(losses, leaf if self.weight.by_gradients else coded.reconstruction, image)
        scale = scale_for(leaf)
        adversarial_gradient = gradient_at(leaf, adversarial, scale)
        if self.weight.by_gradients:
            weight, image_gradient = self._adaptive_weight(losses, leaf, adversarial_gradient, coded, scale)
            losses.values = {name: value.detach() for name, value in losses.values.items()}
        else:
            weight, image_gradient = self.weight(None), torch.zeros((), device=leaf.device)
        if self.ramp > 1:  # a tensor in every step, also at strength 1: a changing Python number makes compilers recompile
            weight = weight * torch.tensor([strength]).to(leaf.device, non_blocking=True)[0]
        losses.add('generator', adversarial.detach(), weight)
        losses.add_gradient(coded.reconstruction, (image_gradient + weight * adversarial_gradient) / scale)
        self._add_hidden_terms(losses, coded, image, image_gradient if self.weight.by_gradients else None)
        self._add_other_terms(losses, coded.losses, coded.latent)
        if isinstance(weight, Tensor):
            losses.notes['generator_weight'] = weight.detach()
        return losses

    def _adaptive_weight(
        self,
        losses: Losses,
        leaf: Tensor,
        adversarial_gradient: Tensor,
        coded: AutoEncoderOutput,
        scale: float,
    ) -> tuple[Tensor | float, Tensor]:
        """The weight, and the gradient of all image losses at the reconstruction (times ``scale``)."""
        assert coded.features is not None
        balanced = set(losses.values if self.weight.losses is None else self.weight.losses)
        terms = {name: losses.values[name] * losses.weights[name] for name in self._at_image(losses, leaf)}
        compared = [terms[name] for name in terms if name in balanced]
        if not compared:
            raise ConfigError(
                f'the adaptive weight compares with {listing(sorted(balanced))}, and none of these depends on the image',
                "Name another loss on the image in the weight's losses, or use dict(type='FixedWeight').",
            )
        numerator = gradient_at(leaf, torch.stack(compared).sum(), scale)
        others = [terms[name] for name in terms if name not in balanced]
        image_gradient = numerator + gradient_at(leaf, torch.stack(others).sum(), scale) if others else numerator
        gradients = self.tokenizer.decoder.last_layer_gradients(
            coded.features.detach(), coded.reconstruction.detach(), torch.stack([numerator, adversarial_gradient])
        )
        averaged = collectives.all_reduce(gradients) / (collectives.size() * scale)
        return self.weight(averaged), image_gradient

    def _at_image(self, losses: Losses, reconstruction: Tensor) -> list[str]:
        """The image losses that depend on ``reconstruction``. With an adaptive weight an error if one depends on more."""
        if not self.weight.by_gradients:
            return list(losses.values)
        ends = {name: gradient_ends(value, reconstruction, self.losses) for name, value in losses.values.items()}
        lost = [name for name, end in ends.items() if end.elsewhere]
        if lost:
            raise ConfigError(
                f'{type(self).__name__}: losses on the image that also depend on other trained tensors: {listing(lost)}; '
                'their gradient there would be lost',
                "Move that part into a loss with acts_on = 'parameters' or 'latent', or use weight=dict(type='FixedWeight').",
            )
        return [name for name, end in ends.items() if end.at_image]

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

    def heaviest_step(self) -> int:
        """The discriminator, the adversarial loss and all penalties are active."""
        every = math.lcm(1, *(int(penalty.interval) for penalty in self.penalties.values()))  # type: ignore[arg-type]
        return self.discriminator_start + 1 + every * math.ceil(self.warmup / every)

    def update(self, ok: Tensor | None = None) -> None:
        super().update(ok)
        join_running_statistics(self._norms)
        for penalty in self.penalties.values():
            assert isinstance(penalty, DiscriminatorPenalty)
            penalty.update(ok)


def gradient_at(leaf: Tensor, value: Tensor, scale: float) -> Tensor:
    """``scale`` times the gradient of the scalar ``value`` at ``leaf``."""
    with no_autocast(leaf.device):
        (gradient,) = torch.autograd.grad(value, leaf, torch.full_like(value, scale))
    return gradient


def gradient_ends(value: Tensor, image: Tensor, networks: nn.Module) -> Ends:
    """Which tensors the gradient of ``value`` reaches, read from its graph down to ``image``, a leaf or the output of a
    network. Parameters of ``networks`` do not count."""
    at_image = elsewhere = False
    end = torch.autograd.graph.get_gradient_edge(image).node
    nodes = [torch.autograd.graph.get_gradient_edge(value).node] if value.requires_grad else []
    seen = set(nodes)
    while nodes and not (at_image and elsewhere):
        node = nodes.pop()
        if node is end:
            at_image = True
            continue
        after = node.next_functions
        variable = None if after else getattr(node, 'variable', None)  # the leaf tensor of an AccumulateGrad node
        if isinstance(variable, Tensor):
            elsewhere = elsewhere or all(variable is not parameter for parameter in networks.parameters())
        new = [other for other, _ in after if other is not None and other not in seen]
        seen.update(new)
        nodes += new
    return Ends(at_image, elsewhere)
