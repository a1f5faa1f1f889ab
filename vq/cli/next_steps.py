"""The closing lines of a command: what to do next."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vq.core.environment import dry_run
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.io.runs import Run

MARK = 'next: '
DRY = '# a dry run: its figures mean nothing. Without DRY_RUN the same commands run in full.'
GENERATORS = {  # dataset of a tokenizer -> config of a generator on its tokens, and the option that names the tokenizer
    'DigitsDataset': ('digits/ar.py', 'tokenizer_run'),
    'FolderDataset': ('photos/ar.py', 'tokenizer'),
    'PackedDataset': ('photos/ar.py', 'tokenizer'),
    'ImageNetDataset': ('ar/c2i_llama_medium_cfg_imagenet_ddp.py', 'tokenizer_run'),
}
DECODERS = {  # likewise, for a tokenizer that makes no pixels: config of a decoder
    'DigitsDataset': ('digits/decoder.py', 'tokenizer_run'),
    'ImageNetDataset': ('decoder/vqgan.py', 'tokenizer_run'),
}
WITHOUT_PIXELS = ('FeatureTokenization',)  # tasks that train such tokenizers


def say_next(*lines: str) -> None:
    """Print commands that usually come next, on the first rank only. The first one is marked, the others stand below it.

    next: vq report tok
          vq train gen photos/ar.py tokenizer=tok
    """
    if not lines or os.environ.get('RANK', '0').strip() not in ('', '0'):
        return
    print('\n'.join(f'{MARK if position == 0 else " " * len(MARK)}{line}' for position, line in enumerate(lines)), flush=True)


def say_next_of(command: str, run: str | Path, work_dir: str | None = None) -> None:
    """The closing lines of ``train``, ``val``, ``test``, ``sample``, ``tokenize`` and ``reconstruct`` about a run.

    ``run``: its name, folder or a checkpoint of it. Nothing is said about what is no run of the folder ``work_dir``.
    """
    from vq.io import runs

    if os.environ.get('RANK', '0').strip() not in ('', '0'):
        return
    with contextlib.suppress(UserError):  # without a complete checkpoint there is nothing to go on with
        found = runs.find(run, work_dir or runs.RUNS)
        lines = after(command, found, work_dir)
        say_next(*lines, *([DRY] if lines and dry_run() else []))


def after(command: str, run: Run, work_dir: str | None = None) -> list[str]:
    """The commands that usually follow ``command`` for this run."""
    name = name_of(run, work_dir)
    if name is None:
        return []
    place, kind = ['--work-dir', work_dir] if work_dir else [], run.spec.kind
    base = Path(work_dir) if work_dir else Path('work_dirs')
    path = str(base / name) if work_dir else name  # commands without --work-dir take the path
    report = shlex.join(['vq', 'report', path])
    generate = generator_line(run, path, base, place)
    if kind == 'segmenter':  # it has no report
        return [shlex.join(['vq', 'val', name, *place])] if command == 'train' else []
    if command == 'train' and kind == 'generator':
        return [shlex.join(['vq', 'sample', name, *place])]
    if command in ('train', 'tokenize') and generate:
        return [report, generate] if command == 'train' else [generate]
    return [report]


def name_of(run: Run, work_dir: str | None = None) -> str | None:
    """The NAME of a run for other commands; None if it is no run of this folder of runs."""
    if run.folder is None:
        return None
    base = (Path(work_dir) if work_dir else Path('work_dirs')).resolve()
    folder = run.folder.resolve()
    if not folder.is_relative_to(base):
        return None
    name = folder.relative_to(base).as_posix()
    return name if work_dir else name.removeprefix('dry_run/')


def generator_line(run: Run, path: str, base: Path, place: list[str]) -> str:
    """The command that trains a generator on the tokens of ``run``, or a decoder if it makes no pixels; empty if it gives no
    tokens or no shipped config fits."""
    trainer = run.config.get('trainer') or {}
    dataset, task = (str((trainer.get(key) or {}).get('type', '')).rpartition('.')[2] for key in ('dataset', 'model'))
    configs, suffix = (DECODERS, 'decoder') if task in WITHOUT_PIXELS else (GENERATORS, 'ar')
    if run.spec.kind != 'tokenizer' or run.spec.tokens is None or dataset not in configs:
        return ''
    config, option = configs[dataset]
    folder, wanted = base / 'dry_run' if dry_run() and not place else base, f'{Path(path).name}_{suffix}'
    wanted = 'gen' if config.startswith('photos/') else wanted
    names = (wanted, *(f'{wanted}_{number}' for number in range(2, 1000)))
    free = next((name for name in names if not (folder / name).exists()), wanted)
    return shlex.join(['vq', 'train', free, config, f'{option}={path}', *place])
