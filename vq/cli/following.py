"""What usually follows a training or a sampling: the lines that ``say_next`` prints at its end."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GENERATORS = {  # name of the dataset in a config -> config of a generator of tokens
    'DigitsDataset': 'digits/ar.py',
    'FolderDataset': 'photos/ar.py',
    'ImageNetDataset': 'ar/c2i_llama_medium_cfg_imagenet_ddp.py',
}


def after_training(name: str, kind: str, config: str, dataset: Mapping[str, Any], work_dir: str | None) -> list[str]:
    """Lines after the training of a model of ``kind`` on ``dataset``, by the config file ``config``."""
    place = '' if work_dir is None else f' --work-dir {shlex.quote(work_dir)}'
    report = f'vq report {shlex.quote(name)}{place}'
    if kind == 'generator':
        return [f'vq sample {shlex.quote(name)}{place}']
    generator = GENERATORS.get(str(dataset.get('type', '')).rpartition('.')[2])
    if re.search(r'(^|/)photos/\w+\.py$', config):
        generator = 'photos/ar.py'
    if kind != 'tokenizer' or generator is None:
        return [report]
    folder = Path(work_dir or 'work_dirs')
    tokenizer = name if work_dir is None else f'{folder / name}'
    new = free_name(folder, 'gen' if generator.startswith('photos/') else f'{Path(name).name}_ar')
    return [report, f'vq train {shlex.quote(new)} {generator} {shlex.quote(f"tokenizer={tokenizer}")}{place}']


def free_name(folder: Path, name: str) -> str:
    """``name``, or the first of ``name_2``, ``name_3``, ... that no run has."""
    number, free = 1, name
    while (folder / free).exists():
        number += 1
        free = f'{name}_{number}'
    return free


def after_sampling(name: str, work_dir: str | None) -> list[str]:
    place = '' if work_dir is None else f' --work-dir {shlex.quote(work_dir)}'
    return [f'vq report {shlex.quote(name)}{place}']
