"""Write a continuous autoencoder in diffusers' layout: what ``vq export`` does with a continuous tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# type of a tokenizer -> the module that knows its layout
LAYOUTS = {'KLAutoencoder': 'diffusers_kl', 'RepresentationAutoencoder': 'diffusers_rae'}


def is_autoencoder(run: Any) -> bool:
    """Whether a run, or a converted file, is that of an autoencoder with a layout of diffusers."""
    if run.checkpoint is None and not _describes_itself(run):
        return False
    return _kind_of(run) in LAYOUTS


def _kind_of(run: Any) -> str:
    tokenizer = run.model.get('tokenizer') or {}
    return str(tokenizer.get('type', '')).split('.')[-1]


def _describes_itself(run: Any) -> bool:
    from vq.io import tensorfile
    from vq.io.published.about import FORMAT
    from vq.io.sniff import sniff

    path = Path(run.weights)
    return path.is_file() and sniff(path) == 'safetensors' and tensorfile.read_header(path).metadata.get('vq.format') == FORMAT


def export_autoencoder(run: Any, weights: Any, folder: Path) -> dict[str, Any]:
    """Write config.json and the weights of an AutoencoderKL or AutoencoderRAE. Returns the contents of config.json."""
    import importlib

    from vq.core.errors import UserError
    from vq.core.specs import plain_size
    from vq.core.trust import import_modules
    from vq.io import tensorfile
    from vq.io.atomic import atomic_file, atomic_folder, write_json
    from vq.io.published.diffusers_kl import CONFIG, WEIGHTS
    from vq.loading import load_run

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'{folder} already exists', 'Give a new folder, or remove that one.')
    import_modules(run.custom_imports)
    model = load_run(run, weights=weights).model
    layout = importlib.import_module(f'vq.io.published.{LAYOUTS[_kind_of(run)]}')
    settings: dict[str, Any]
    settings, tensors = layout.exported(run.model['tokenizer'], model.state_dict(), plain_size(run.spec.image or (256, 256)))
    with atomic_folder(folder) as aside:
        write_json(aside / CONFIG, settings)
        with atomic_file(aside / f'{WEIGHTS}.safetensors', tensorfile.size_of(tensors)) as writer:
            tensorfile.write_tensors(writer, tensors, {'format': 'pt'})
    return settings
