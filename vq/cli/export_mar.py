"""Write a trained MAR as the checkpoint of the published code: what ``vq export`` does with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FILE = 'checkpoint-last.pth'  # in the folder that its --resume names


def is_continuous(run: Any) -> bool:
    """Whether a run holds a generator of continuous tokens."""
    return run.checkpoint is not None and str(run.model.get('type', '')).rpartition('.')[2] == 'LatentModeling'


def export_mar(run: Any, folder: Path) -> dict[str, Any]:
    """Weights and their average, under the names of MAR. Returns the settings of its constructor, which vq.json has too."""
    import torch

    from vq.core.trust import import_modules
    from vq.interfaces import Task
    from vq.io.atomic import atomic_folder, write_json
    from vq.io.published import mar
    from vq.io.weights import load_model_from

    import_modules(run.custom_imports)
    task: Any = Task()  # only these parts: the tokenizer is not loaded
    task.generator, task.conditioner = parts_of(run)
    about, states = settings_of(task.generator, task.conditioner), {}
    for name, which in (('model', 'model'), ('model_ema', 'auto')):
        load_model_from(task, [run], weights=which)  # type: ignore[arg-type]
        states[name] = {key: value.clone() for key, value in mar.restore(task.state_dict()).items()}
    with atomic_folder(folder) as place:
        torch.save({**states, 'epoch': 0}, place / FILE)
        write_json(place / 'vq.json', about)
    return about


def parts_of(run: Any) -> tuple[Any, Any]:
    """Generator and conditioner of a run, without its weights."""
    from vq.registries import VQConditionerRegistry, VQContinuousGeneratorRegistry

    generator, conditioner = dict(run.model['generator']), dict(run.model.get('conditioner') or {})
    # a task fills these in from its tokenizer and its data, which are not built here
    if run.spec.latent is not None and run.model.get('connector') is None:
        generator = {'channels': run.spec.latent.channels, 'cells': run.spec.latent.cells, **generator}
    if classes := run.spec.trained_on.get('classes'):
        conditioner = conditioner and {'classes': classes, **conditioner}
    made = VQContinuousGeneratorRegistry.build(generator, 'model.generator')
    if not conditioner:
        return made, None
    return made, VQConditionerRegistry.build({'dim': made.dim, **conditioner}, 'model.conditioner')


def settings_of(generator: Any, conditioner: Any) -> dict[str, Any]:
    """The settings of the published code that make its network this one; an error if there are none."""
    from vq.conditioners.classes import ClassConditioner
    from vq.core.errors import UserError
    from vq.denoisers.mlp import MLPDenoiser
    from vq.generators.continuous.mar import MAR
    from vq.generators.heads.diffusion import DiffusionHead

    head = getattr(generator, 'head', None)
    network = getattr(head, 'denoiser', None)
    if not isinstance(generator, MAR) or not isinstance(head, DiffusionHead) or not isinstance(network, MLPDenoiser):
        names = ' with '.join(type(part).__name__ for part in (generator, head) if part is not None)
        raise UserError(f'{names} has no layout of other programs', 'Only a MAR whose head has an MLPDenoiser has one.')
    reasons = {
        f'kind {network.kind}': network.kind != 'epsilon',
        'learned_variance False': not network.learned_variance,
        f'timesteps {network.time.steps}': network.time.steps != 1000,
        'no ClassConditioner': not isinstance(conditioner, ClassConditioner),
        f'cells {generator.cells}': len(generator.cells) != 2 or generator.cells[0] != generator.cells[1],
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise UserError(
            f'the code of MAR has another network than this one: {", ".join(found)}',
            'Train the published form: prediction=epsilon, classes, square latents.',
        )
    blocks = generator.network
    return {
        'encoder_embed_dim': generator.dim,
        'encoder_depth': len(blocks.blocks),
        'encoder_num_heads': generator.heads,
        'decoder_embed_dim': blocks.to_decoder.out_features,
        'decoder_depth': len(blocks.decoder_blocks),
        'diffloss_w': network.width,
        'diffloss_d': len(network.blocks),
        'buffer_size': blocks.buffer,
        'patch_size': generator.layout.patch,
        'vae_embed_dim': generator.channels,
        'class_num': conditioner.classes,
    }
