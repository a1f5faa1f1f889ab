"""A training step of VQ-KD, and the share of its teacher, for ``train_step.py --vqkd`` and ``gpu.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from _common import in_turns, must_be_equal, paired_ratio, rounded, table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vq.core.records import Batch, to_float
from vq.registries import VQTaskRegistry

CONFIG = 'vqkd/clip_8192_imagenet_ddp.py'


def compose_vqkd(tiny: bool) -> Mapping[str, Any]:
    """The trainer of the shipped config: a ViT-B encoder, and a ViT-B as teacher."""
    from vq.assembly.compose import compose

    trainer: Mapping[str, Any] = compose(f'configs/{CONFIG}', {}, {}, tiny=tiny)['trainer']
    return trainer


class VQKDStep:
    """The task with its optimizer; random weights, as the time does not depend on them."""

    def __init__(self, tiny: bool, count: int) -> None:
        torch.manual_seed(0)
        trainer = compose_vqkd(tiny)
        self.task: Any = VQTaskRegistry.build(trainer['model'], 'model').train()
        self.size = 32 if tiny else 224
        image = torch.randint(0, 256, (count, 3, self.size, self.size), dtype=torch.uint8)
        self.batch = Batch(image, [str(index) for index in range(count)], torch.arange(count))
        trained = [parameter for parameter in self.task.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, 2e-4, (0.9, 0.99), weight_decay=1e-4, fused=True)
        self.losses: dict[str, Tensor] = {}

    def step(self, update: bool = True) -> None:
        [(_, losses)] = list(self.task.training_step(self.batch, self.task.roots(), 1))
        self.losses = {name: value.detach() for name, value in losses.values.items()}
        losses.total.backward()
        if update:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.task.update()

    def teacher(self) -> Tensor:
        task, cells = self.task, self.task.tokenizer.spec((self.size, self.size)).latent.cells
        target: Tensor = task.teacher.target(to_float(self.batch.image), cells, task.teacher_layers)
        return target

    def parts(self) -> dict[str, Callable[[], object]]:
        tokenizer, image = self.task.tokenizer, to_float(self.batch.image)
        with torch.no_grad():
            z = tokenizer.quantize(tokenizer.encode(image)).z

        def predict() -> None:
            tokenizer.predict(z).sum().backward()

        def encode() -> None:
            tokenizer.encode(image).mean.sum().backward()

        return {
            'teacher': self.teacher,
            'encoder, forward and backward': encode,
            'feature decoder, forward and backward': predict,
            'optimizer': self.optimizer.step,
        }

    def check(self) -> None:
        """The losses of a step are those of its parts, called by hand; the teacher is called once."""
        teacher, calls = self.task.teacher, []
        features = type(teacher).features

        def counted(self: Any, *arguments: Any) -> Any:
            calls.append(1)
            return features(self, *arguments)

        type(teacher).features = counted
        try:
            self.step(update=False)
        finally:
            type(teacher).features = features
        self.optimizer.zero_grad(set_to_none=True)
        tokenizer = self.task.tokenizer
        with torch.no_grad():
            prediction = tokenizer.predict(tokenizer.quantize(tokenizer.encode(to_float(self.batch.image))).z)
            cosine = 1 - torch.nn.functional.cosine_similarity(prediction, self.teacher(), dim=1).mean()
        difference = float((cosine - self.losses['cosine']).abs())
        must_be_equal('the cosine loss of a step of VQ-KD and of its parts', difference < 1e-4, f'to {difference:.1e}')
        must_be_equal('the teacher is called once a step', len(calls) == 1, f'{len(calls)} calls')


def operations(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def teacher_share(quick: bool, repeats: int) -> dict[str, Any]:
    """Time the step and its parts on the CPU; the roof of the teacher's share is its share of the operations."""
    one = VQKDStep(tiny=quick, count=2)
    one.check()
    least = operations(one.teacher) / operations(lambda: one.step(update=False))
    one.optimizer.zero_grad(set_to_none=True)
    times = in_turns({'step': one.step, **one.parts()}, repeats)
    whole = times['step']
    found: dict[str, Any] = {'teacher_share_of_operations': rounded(least)}
    rows = []
    for name, spent in times.items():
        share = paired_ratio(spent.cpu, whole.cpu)
        rows.append([name, 1e3 * spent.median, 1e3 * spent.cpu_median, 100 * share])
        found[name] = {
            'wall_ms': rounded(1e3 * spent.median),
            'cpu_ms': rounded(1e3 * spent.cpu_median),
            'share': rounded(share),
        }
    shape = 'tiny networks' if quick else 'encoder and teacher ViT-B/16, 224 pixels'
    table(f'one step of VQ-KD, 2 images, {shape}', ['', 'ms', 'ms of cpu', '% of the step'], rows)
    print(f'the teacher has {100 * least:.1f} % of the operations of a step')
    return found
