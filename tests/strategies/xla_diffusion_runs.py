"""Diffusion on XLA: ``python -m tests.strategies.xla_diffusion_runs FOLDER`` trains and draws there; see xla_runs.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.strategies.xla_runs import compilations, recorded

ITERS, IMAGES = 4, [0, 1, 2, 3]


def train_and_draw(folder: Path, strategy: str) -> dict[str, Any]:
    """4 steps on pixels in the published form; weights, their average, and images of two samplers go to ``folder``.

    Returns the losses and, under XLA, how many programs each step and each batch of images had compiled by its end.
    """
    from vq.assembly.compose import checked, compose
    from vq.registries import VQRunnerRegistry
    from vq.runners.context import RunContext

    settings = dict(iters=ITERS, strategy=strategy, batch_size=8, image_size=16, precision='fp32', save_every=ITERS)
    network = dict(dim=16, depth=1, heads=2, patch=4, path='beta', learned_variance=True, prediction='v')
    how = dict(stratified=True, loss_space='x0', threshold=1.0, num_workers=0)
    config = compose('configs/diffusion/digits_pixels.py', {**settings, **network, **how}, {}, tiny=False)
    config.trainer.optimizers = dict(denoiser=dict(type='SGD', lr=0.05))
    config.trainer.callbacks = [dict(type='EMACallback', decay=0.9), dict(type='CheckpointCallback', interval=ITERS)]
    torch.manual_seed(3)
    trainer: Any = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    folder.mkdir(parents=True, exist_ok=True)
    trainer.bind(RunContext('diffusion', folder / 'run', seed=7))
    with recorded(trainer) as found:
        trainer.run()
    drawn, counts = draw(trainer)
    torch.save(drawn, folder / 'drawn.pt')
    return {**found, 'compiled_drawing': counts, 'words': words_of(trainer.strategy.device)}


def words_of(device: torch.device) -> list[list[int]]:
    """Words of keys of both signs: the numbers of a step are made of them."""
    from vq.sampling.keyed import words

    found: list[list[int]] = words(torch.tensor([5, -77, 1 << 62, -1 - (1 << 62)], device=device), 8).cpu().tolist()
    return found


def draw(trainer: Any) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Images of each sampler, twice the same call: the second compiles nothing."""
    from vq.core.drawing import Wanted
    from vq.interfaces.conditions import Asked

    model, strategy = trainer.model.eval(), trainer.strategy
    found, counts = {}, []
    for sampler in ('DDIM', 'Ancestral'):
        task = model.drawing({'sampler': sampler, 'steps': 3, 'guidance': 2})
        for ids in (IMAGES, [place + 4 for place in IMAGES]):
            wanted = Wanted(ids, 5, task.condition(Asked(), ids, strategy.device))
            with torch.no_grad(), strategy.autocast():
                images = task.draw(wanted).images()
            found[f'{sampler} {ids[0]}'] = images.cpu()
            counts.append(compilations() if strategy.name == 'xla' else 0)
    return found, counts


if __name__ == '__main__':
    print(json.dumps(train_and_draw(Path(sys.argv[1]), 'xla')))
