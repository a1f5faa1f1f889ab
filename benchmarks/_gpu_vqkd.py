"""Images per second in training VQ-KD with a ViT-B as encoder and another as teacher, and the teacher's share of the step."""

from __future__ import annotations

import torch
from _common import must_be_equal, paired_ratio, rounded
from _gpu_clock import peak_mib, product_rate, timed
from _gpu_running import Record
from _gpu_step import Training, comparable, difference, images, rates_of
from _gpu_train import SLACK, operations
from _train_step_vqkd import compose_vqkd

from vq.core.records import to_float

CHECKED, BATCH, QUICK_BATCH = 4, 64, 2


def vqkd(record: Record) -> None:
    trainer, size = compose_vqkd(record.quick), 32 if record.quick else 224
    device = record.device
    kind, plain = (
        Training(trainer['model'], rates_of(trainer), {'device': device.type, 'precision': precision})
        for precision in ('bf16', 'fp32')
    )
    if kind.missing:
        record.note(f'no pretrained files of {", ".join(kind.missing)}: random weights from seed 0')
    few, batch = (images(QUICK_BATCH if record.quick else count, size).to(device) for count in (CHECKED, BATCH))
    with comparable():
        worst = difference(kind.first(few)[0], plain.first(few)[0])
    must_be_equal('VQ-KD in bf16 and in fp32 at step 1', worst < SLACK, f'losses to {worst:.1e}')
    del plain
    task = kind.task
    cells, layers = task.tokenizer.spec((size, size)).latent.cells, task.teacher_layers  # type: ignore[operator, union-attr]

    def teacher() -> torch.Tensor:
        with kind.strategy.autocast():
            target: torch.Tensor = task.teacher.target(to_float(batch.image), cells, layers)  # type: ignore[operator, union-attr]
        return target

    flops, rate = operations(kind, few), product_rate(record)
    memory = peak_mib(device, lambda: kind.step(batch))
    times = timed(record, {'step': lambda: kind.step(batch), 'teacher': teacher}, warmup=2)
    speed, share = len(batch) / times['step'].median, paired_ratio(times['teacher'].wall, times['step'].wall)
    record.row(f'VQ-KD, two ViT-B, bf16, batch {len(batch)}', speed, 'images/s', roof=speed * flops / rate)
    record.row('the teacher, of a step of VQ-KD', 100 * share, '%')
    record.keep('step', {**times['step'].figures(), 'peak_mib': memory, 'tflop_per_image': rounded(flops / 1e12)})
    record.keep('teacher', {**times['teacher'].figures(), 'share': rounded(share)})
