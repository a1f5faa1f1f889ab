"""One adversarial training step: one generator forward against the two-forward formulation, on the same networks.

    python benchmarks/train_step.py            64 pixels, batches of 8; without and with LPIPS
    python benchmarks/train_step.py --quick    32 pixels, batches of 4
    python benchmarks/train_step.py --vqkd     a step of VQ-KD instead: the share of a ViT-B as teacher

The peer is VQGAN's step as implemented by its authors and later toolkits: forward, two gradients at the last layer for the
adaptive weight, backward; then, for the discriminator, a second forward of the autoencoder (without a graph, in the peer's
favour). Ours runs one forward, and one backward per loss network. Both use fused Adam, in this process, in turns.

First, equality is checked: the tokenizer's loss and gradients at step 1, and the discriminator's loss and gradients for the
same reconstruction. The roof is the minimum of forward and backward passes of every network, without losses, adaptive weight
and optimizers. Ratios are of CPU time, paired by round. Networks have random weights.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any

from _common import Times, arguments, finish, in_turns, machine, must_be_equal, paired_ratio, rounded, table

from vq.core import environment

os.environ.setdefault('OMP_NUM_THREADS', '1')  # with one thread, CPU time is the wall time of an idle machine
environment.prepare()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from vq.core.records import Batch, to_float  # noqa: E402
from vq.registries import VQTaskRegistry  # noqa: E402

GAIN, EPS, LIMIT = 0.8, 1e-4, 1e4


def build(width: int, perceptual: bool) -> Any:
    """VQGAN's recipe at a small width, f8."""
    torch.manual_seed(0)
    shape = {'width': width, 'multipliers': (1, 1, 2, 4), 'attention_levels': (3,), 'norm_groups': 8}
    losses: dict[str, Any] = {'l1': {'type': 'L1Loss'}}
    if perceptual:
        losses['lpips'] = {'type': 'LPIPSLoss'}
    config = {
        'type': 'AdversarialTokenization',
        'tokenizer': {
            'type': 'VQGAN',
            'encoder': dict(type='ConvEncoder', residual_blocks=2, out_channels=64, **shape),
            'post_encode': {'type': 'ConvConnector'},
            'quantizer': {'type': 'VectorQuantizer', 'codebook_size': 1024, 'embedding_dim': 64},
            'pre_decode': {'type': 'ConvConnector'},
            'decoder': dict(type='ConvDecoder', residual_blocks=3, **shape),
        },
        'losses': losses,
        'discriminator': {'type': 'PatchGAN', 'width': width, 'depth': 2},
        'generator_loss': {'type': 'HingeGeneratorLoss'},
        'discriminator_loss': {'type': 'HingeDiscriminatorLoss'},
        'weight': {'type': 'AdaptiveWeight', 'gain': GAIN, 'eps': EPS, 'limit': LIMIT},
    }
    return VQTaskRegistry.build(config, 'model').train()


class Side:
    """A task with its two optimizers. The benchmark times ``step``."""

    def __init__(self, width: int, perceptual: bool, batch: Batch) -> None:
        self.task, self.batch = build(width, perceptual), batch
        self.roots = self.task.roots()
        self.tokenizer, self.discriminator = self.task.tokenizer, self.task.discriminator
        self.optimizers = {
            'tokenizer': torch.optim.Adam(self.tokenizer.parameters(), 5.4e-5, (0.5, 0.9), fused=True),
            'discriminator': torch.optim.Adam(self.discriminator.parameters(), 4.32e-4, (0.5, 0.9), fused=True),
        }
        self.losses: dict[str, Tensor] = {}

    def finish(self, name: str, total: Tensor, update: bool) -> None:
        self.losses[name] = total.detach()
        total.backward()  # type: ignore[no-untyped-call]
        if update:
            self.optimizers[name].step()
            self.optimizers[name].zero_grad(set_to_none=True)

    def step(self, update: bool = True) -> None:
        raise NotImplementedError


class Ours(Side):
    def step(self, update: bool = True) -> None:
        for name, losses in self.task.training_step(self.batch, self.roots, 1):
            self.finish(name, losses.total, update)


class TwoForwards(Side):
    """The pass of the tokenizer, then that of the discriminator, each with its own forward."""

    def step(self, update: bool = True) -> None:
        image = to_float(self.batch.image)
        self.discriminator.requires_grad_(False)
        quantized = self.tokenizer.quantize(self.tokenizer.encode(image))
        reconstruction = self.tokenizer.decode(quantized.z)
        pixels: Tensor = sum(loss.weight * loss(reconstruction, image) for loss in self.task.losses.values())  # type: ignore[assignment]
        adversarial = -self.discriminator(reconstruction).mean()
        last = self.tokenizer.decoder.conv_out.weight
        norms = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (pixels, adversarial)]
        weight = GAIN * torch.clamp(norms[0] / (norms[1] + EPS), 0, LIMIT)
        codes: Tensor = sum(self.tokenizer.loss_weights[name] * value for name, value in quantized.losses.items())  # type: ignore[assignment]
        self.finish('tokenizer', pixels + codes + weight * adversarial, update)

        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            fake = self.tokenizer.decode(self.tokenizer.quantize(self.tokenizer.encode(image)).z)
        real_logits, fake_logits = self.discriminator(image), self.discriminator(fake)
        self.finish('discriminator', 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()), update)


class Roof(Side):
    """The networks alone: a lower bound for any such step."""

    def step(self, update: bool = True) -> None:
        image = to_float(self.batch.image)
        latent = self.tokenizer.encode(image).mean
        reconstruction = self.tokenizer.decode(latent)
        leaf = reconstruction.detach().requires_grad_()
        for loss in [*self.task.losses.values()][1:]:
            torch.autograd.grad(loss(leaf, image), leaf)
        torch.autograd.grad(self.discriminator(leaf).sum(), leaf)
        reconstruction.backward(leaf.detach())  # type: ignore[no-untyped-call]
        (self.discriminator(image).sum() + self.discriminator(leaf.detach()).sum()).backward()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)


def parts_of(side: Ours) -> dict[str, Callable[[], object]]:
    """The parts of our step, each timed alone."""
    task, tokenizer, image = side.task, side.tokenizer, to_float(side.batch.image)
    with torch.no_grad():
        features = tokenizer.encode(image).mean
        codes = tokenizer.quantize(tokenizer.encode(image)).z
        reconstruction = tokenizer.decode(codes)
    leaf = reconstruction.clone().requires_grad_()

    def backward() -> None:
        quantized = tokenizer.quantize(tokenizer.encode(image))
        tokenizer.decode(quantized.z).backward(reconstruction)

    def with_graph() -> None:
        tokenizer.decode(tokenizer.quantize(tokenizer.encode(image)).z)

    def balance() -> None:
        h = tokenizer.decoder_features(codes)
        tokenizer.decoder.last_layer_gradients(h.detach(), reconstruction, torch.stack([reconstruction, leaf.detach()]))

    def discriminator_step() -> None:
        (task.discriminator(image).mean() + task.discriminator(reconstruction).mean()).backward()

    def optimize() -> None:
        for optimizer in side.optimizers.values():
            optimizer.step()

    found: dict[str, Callable[[], object]] = {
        'encoder forward': lambda: tokenizer.encode(image),
        'quantizer forward': lambda: tokenizer.quantizer(features.permute(0, 2, 3, 1)),
        'decoder forward': lambda: tokenizer.decode(codes),
        'autoencoder forward, with graph': with_graph,
        'autoencoder forward and backward': backward,
        'discriminator, tokenizer step': lambda: torch.autograd.grad(task.discriminator(leaf).mean(), leaf),
        'gradients at the last layer (with decoder forward)': balance,
        'discriminator, own step': discriminator_step,
        'both optimizers': optimize,
    }
    if 'lpips' in task.losses:
        found['LPIPS forward and backward'] = lambda: torch.autograd.grad(task.losses['lpips'](leaf, image), leaf)
    return found


def check(width: int, perceptual: bool, batch: Batch) -> None:
    """Loss and gradients of both optimizers at step 1."""
    ours, peer = Ours(width, perceptual, batch), TwoForwards(width, perceptual, batch)
    for side in (ours, peer):
        side.step(update=False)
    worst = 0.0
    for name in ('tokenizer', 'discriminator'):
        torch.testing.assert_close(ours.losses[name], peer.losses[name], rtol=1e-4, atol=1e-6)
        pairs = zip(getattr(ours, name).parameters(), getattr(peer, name).parameters(), strict=True)
        gradients = [(one.grad, other.grad) for one, other in pairs]
        overall = max(float(other.abs().max()) for _, other in gradients)
        for one, other in gradients:  # gradients of biases before a norm are rounding errors only
            scale = max(float(other.abs().max()), 1e-3 * overall)
            worst = max(worst, float((one - other).abs().max()) / scale)
    what = f'losses and gradients, {"with" if perceptual else "without"} LPIPS'
    must_be_equal(what, worst < 1e-2, f'largest difference {worst:.1e} of the largest gradient of its tensor')


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--width', type=int, default=32)
    parser.add_argument('--vqkd', action='store_true', help="a step of VQ-KD, and its teacher's share")
    options = parser.parse_args()
    where = machine()
    if options.vqkd:
        from _train_step_vqkd import teacher_share

        finish('train_step', options.quick, where, {'vqkd': teacher_share(options.quick, 7)})
        return
    size, count, repeats = (32, 4, 7) if options.quick else (64, 8, 9)
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    batch = Batch(image, [str(index) for index in range(count)], torch.arange(count))

    figures: dict[str, Any] = {'pixels': size, 'batch': count, 'width': options.width}
    for perceptual in (False, True):
        check(options.width, perceptual, batch)
        sides = {
            'ours: one forward': Ours(options.width, perceptual, batch),
            'two forwards': TwoForwards(options.width, perceptual, batch),
            'roof: networks only': Roof(options.width, perceptual, batch),
        }
        times = in_turns({name: side.step for name, side in sides.items()}, repeats, warmup=2)
        ours = times['ours: one forward']
        rows, found = [], {}
        for name, spent in times.items():
            ratio = paired_ratio(spent.cpu, ours.cpu)
            rows.append([name, 1e3 * spent.median, 1e3 * spent.cpu_median, ratio, count / spent.median])
            found[name] = {
                'wall_ms': rounded(1e3 * spent.median),
                'cpu_ms': rounded(1e3 * spent.cpu_median),
                'times_ours': rounded(ratio),
            }
        label = 'with LPIPS' if perceptual else 'without LPIPS'
        table(f'one step, {label}', ['', 'ms', 'ms of cpu', 'x ours', 'images/s'], rows)
        one = sides['ours: one forward']
        assert isinstance(one, Ours)
        found['parts'] = breakdown(one, ours, repeats, label)
        figures[label] = found
    finish('train_step', options.quick, where, figures)


def breakdown(side: Ours, whole: Times, repeats: int, label: str) -> dict[str, float]:
    """Print the shares of a step. Forwards are timed with a graph; some parts overlap, as their names tell."""
    spent = in_turns(parts_of(side), repeats)
    total = statistics.median(whole.cpu)
    rows = [[name, 1e3 * times.cpu_median, 100 * times.cpu_median / total] for name, times in spent.items()]
    table(f'parts of our step, {label}', ['', 'ms of cpu', '% of the step'], rows)
    for optimizer in side.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    return {name: rounded(times.cpu_median / total) for name, times in spent.items()}


if __name__ == '__main__':
    main()
