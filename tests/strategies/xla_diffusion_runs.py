"""Diffusion, energies and MAR on XLA: ``python -m tests.strategies.xla_diffusion_runs FOLDER`` trains and draws there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.strategies.xla_runs import compilations, recorded

ITERS, IMAGES = 4, [0, 1, 2, 3]
PIXELS: dict[str, Any] = dict(image_size=16, dim=16, depth=1, heads=2, patch=4)
# a step size that is learned, wrong samples, the inner loop in training and in drawing
ENERGY: dict[str, Any] = dict(PIXELS, pixels=True, learn_step=True, contrastive=True, inner_loop=True, inner_steps=1)
# all tokens hidden in every step: another number of them is another program
MAR: dict[str, Any] = dict(dim=16, depth=1, heads=2, head_width=16, head_depth=1, mask_min=0.95, width=8, latent_channels=4)


def train_and_draw(folder: Path, strategy: str) -> dict[str, Any]:
    """4 steps on pixels in the published form; weights, their average, and images of two samplers go to ``folder``.

    Returns the losses and, under XLA, how many programs each step and each batch of images had compiled by its end.
    """
    published: dict[str, Any] = dict(path='beta', learned_variance=True, prediction='v')
    how = dict(stratified=True, loss_space='x0', threshold=1.0)
    config = ('configs/diffusion/digits_pixels.py', {**PIXELS, **published, **how})
    trainer, found = trained(folder, strategy, *config, 'denoiser')
    drawn, counts = draw(trainer, [dict(sampler=name, steps=3, guidance=2) for name in ('DDIM', 'Ancestral')])
    torch.save(drawn, folder / 'drawn.pt')
    return {**found, 'compiled_drawing': counts, 'words': words_of(trainer.strategy.device)}


def energies(folder: Path, strategy: str) -> dict[str, Any]:
    """The same of energy diffusion, whose steps differentiate twice; images by its inner loop, with guidance."""
    trainer, found = trained(folder, strategy, 'configs/energy/digits.py', ENERGY, 'denoiser')
    drawn, counts = draw(trainer, [dict(sampler='DDIM', steps=2, guidance=2)], 3)
    torch.save(drawn, folder / 'drawn.pt')
    return {**found, 'compiled_drawing': counts}


def mar(folder: Path, strategy: str) -> dict[str, Any]:
    """The same of MAR, on latents of a tokenizer that nobody trained."""
    trainer, found = trained(folder, strategy, 'configs/mar/digits.py', MAR, 'generator')
    drawn, counts = draw(trainer, [dict(num_iter=2, steps=2, guidance=2)], 3)
    torch.save(drawn, folder / 'drawn.pt')
    return {**found, 'compiled_drawing': counts}


OTHERS = {'energies': energies, 'mar': mar}


def trained(folder: Path, strategy: str, file: str, options: dict[str, Any], root: str) -> tuple[Any, dict[str, Any]]:
    """A trainer after its steps, and what was recorded."""
    from vq.assembly.compose import checked, compose
    from vq.registries import VQRunnerRegistry
    from vq.runners.context import RunContext

    settings = dict(iters=ITERS, strategy=strategy, batch_size=8, precision='fp32', save_every=ITERS, num_workers=0)
    config = compose(file, {**settings, **options}, {}, tiny=False)
    config.trainer.optimizers = {root: dict(type='SGD', lr=0.05)}
    config.trainer.callbacks = [dict(type='EMACallback', decay=0.9), dict(type='CheckpointCallback', interval=ITERS)]
    torch.manual_seed(3)
    trainer: Any = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    folder.mkdir(parents=True, exist_ok=True)
    trainer.bind(RunContext('diffusion', folder / 'run', seed=7))
    with recorded(trainer) as found:
        trainer.run()
    return trainer, found


def words_of(device: torch.device) -> list[list[int]]:
    """Words of keys of both signs: the numbers of a step are made of them."""
    from vq.sampling.keyed import words

    found: list[list[int]] = words(torch.tensor([5, -77, 1 << 62, -1 - (1 << 62)], device=device), 8).cpu().tolist()
    return found


def draw(trainer: Any, settings: list[dict[str, Any]], batches: int = 2) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Images of each of the settings, in some batches; and how many programs were compiled by the end of each."""
    from vq.core.drawing import Wanted
    from vq.interfaces.conditions import Asked

    model, strategy = trainer.model.eval(), trainer.strategy
    found, counts = {}, []
    for setting in settings:
        task = model.drawing(setting)
        for ids in ([place + 4 * batch for place in IMAGES] for batch in range(batches)):
            wanted = Wanted(ids, 5, task.condition(Asked(), ids, strategy.device))
            with torch.no_grad(), strategy.autocast():
                images = task.draw(wanted).images()
            found[f'{setting.get("sampler", "")} {ids[0]}'] = images.cpu()
            counts.append(compilations() if strategy.name == 'xla' else 0)
    return found, counts


if __name__ == '__main__':
    place = Path(sys.argv[1])
    results = {'plain': train_and_draw(place, 'xla')}
    results |= {name: run(place / name, 'xla') for name, run in OTHERS.items()}
    print(json.dumps(results))
