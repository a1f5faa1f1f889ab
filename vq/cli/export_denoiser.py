"""Write a trained or converted DiT in diffusers' layout: what ``vq export`` does with a denoiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def is_denoiser(run: Any) -> bool:
    """Whether a run, or a converted file, holds a denoiser."""
    return bool(run.model.get('denoiser')) if run.checkpoint is not None else 'vq.denoiser' in _notes(run)


def _notes(run: Any) -> dict[str, str]:
    """The metadata of a file of weights; none of a file of another format."""
    from vq.io import tensorfile
    from vq.io.sniff import sniff

    path = Path(run.weights)
    return dict(tensorfile.read_header(path).metadata) if path.is_file() and sniff(path) == 'safetensors' else {}


def load_denoiser(run: Any, weights: Any) -> tuple[Any, Any]:
    """The denoiser and the conditioner of a run or of a converted file, in eval mode on the CPU."""
    from vq.core.errors import UserError
    from vq.core.reading import parse_json
    from vq.core.trust import import_modules
    from vq.interfaces import Task
    from vq.io.weights import load_model_from
    from vq.registries import VQConditionerRegistry, VQDenoiserRegistry

    if run.checkpoint is None:
        notes = _notes(run)
        denoiser, conditioner = (parse_json(notes[f'vq.{part}']) for part in ('denoiser', 'conditioner'))
    else:
        import_modules(run.custom_imports)
        denoiser, conditioner = dict(run.model['denoiser']), dict(run.model.get('conditioner') or {})
        # a task fills these in from its tokenizer and its data, which are not built here
        if run.model.get('tokenizer') is None:
            denoiser = {'channels': 3, 'cells': run.spec.image, **denoiser}
        elif run.spec.latent is not None and run.model.get('connector') is None:
            denoiser = {'channels': run.spec.latent.channels, 'cells': run.spec.latent.cells, **denoiser}
        if classes := run.spec.trained_on.get('classes'):
            conditioner = conditioner and {'classes': classes, **conditioner}
    if not conditioner:
        raise UserError(f'{run.name} has no conditioner', "diffusers' DiT needs classes: give a class-conditional run.")
    task = Task()  # only these parts: the tokenizer is not loaded
    task.denoiser = VQDenoiserRegistry.build(denoiser, 'model.denoiser')
    conditioner = {'dim': task.denoiser.dim, **conditioner}
    task.conditioner = VQConditionerRegistry.build(conditioner, 'model.conditioner')
    load_model_from(task, [run], weights=weights)
    task.eval()
    return task.denoiser, task.conditioner


def export_dit(denoiser: Any, conditioner: Any, folder: Path, inexact: bool = False) -> dict[str, Any]:
    """Write a DiT and its classes. Returns what the network takes and gives."""
    from vq.conditioners.classes import ClassConditioner
    from vq.core.errors import UserError
    from vq.denoisers.dit import DiT
    from vq.io.diffusers_dit import PERIOD, DiTShape, dit_tensors, write_dit

    if not isinstance(denoiser, DiT) or not isinstance(conditioner, ClassConditioner):
        raise UserError(
            f"{type(denoiser).__name__} with {type(conditioner).__name__} has no layout in diffusers' DiT",
            'Only a DiT with a ClassConditioner has one.',
        )
    if reasons := _differences(denoiser):
        raise UserError(
            f"diffusers' DiT differs from this one: {', '.join(reasons)}",
            'Train the published form: the defaults of DiT, on a square latent.',
        )
    time: Any = denoiser.time
    exact = abs(time.period - PERIOD) < 1e-6
    if not exact and not inexact:
        raise UserError(
            f'the network tells time with the period {time.period:g}, and diffusers with {PERIOD:.4f}: its outputs '
            'would differ',
            f'Train with time_period={PERIOD!r}; --inexact writes the weights as they are, like published files.',
        )
    shape = DiTShape(denoiser.heads, denoiser.cells[0], denoiser.channels)
    about = {
        'prediction': denoiser.kind,
        'learned_variance': denoiser.learned_variance,
        'channels': denoiser.channels,
        'cells': list(denoiser.cells),
        'classes': conditioner.classes,
        'null_class': conditioner.classes,
        'timesteps': time.steps,
        'exact': exact,
    }
    write_dit(folder, dit_tensors(denoiser.state_dict(), conditioner.table.weight), shape, about)
    return about


def _differences(denoiser: Any) -> list[str]:
    found = {
        'the form of its blocks, positions or time': not denoiser.published,
        f'mlp_ratio {denoiser.mlp_ratio:g} instead of 4': denoiser.mlp_ratio != 4,
        f'cells {denoiser.cells} that are no square': len(set(denoiser.cells)) > 1,
        'times without an index': getattr(denoiser.time, 'steps', None) is None,
    }
    return [reason for reason, differs in found.items() if differs]
