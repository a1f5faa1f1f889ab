"""What ``python -m vq.demo understanding`` trains: two classifiers, and for each tokenizer a chain of runs on top of it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from vq.core.environment import dry_run
from vq.io import atomic

FOLDER = 'understanding'  # of all runs, below the folder of runs
TEACHER, JUDGE = 'teacher', 'judge'
CLASSIFIER = 'configs/ic/digits.py'
CODES = 256
TINY_CODES = 64  # of a dry run: those of the tiny form of VQ-KD and Cluster
STEPS = 400  # of each generator
DRAWN = 500  # new digits of each generator: 50 of each class

Command = tuple[str, list[str]]  # (module, arguments)


@dataclasses.dataclass(frozen=True)
class Chain:
    """A tokenizer and what is trained on its tokens."""

    title: str
    config: str
    learns: str  # what its codes are trained to predict
    features: bool = False  # whether they predict features of the teacher, so that pixels need a decoder of their own

    @property
    def decodes(self) -> str:
        """The suffix of the run that makes pixels of the tokens."""
        return '_decoder' if self.features else ''


CHAINS = {
    'vqgan': Chain('VQGAN', 'configs/digits/vqgan.py', 'pixels'),
    'vqkd': Chain('VQ-KD', 'configs/digits/vqkd.py', 'features of the teacher', features=True),
    'fsq': Chain('FSQ', 'configs/digits/fsq.py', 'pixels'),
    'cluster': Chain('Cluster', 'configs/digits/cluster.py', 'features of the teacher', features=True),
}
PARTS = (TEACHER, *CHAINS, JUDGE)  # in the order of their start: the longest chains do not come last
NEEDS_TEACHER = tuple(name for name, chain in CHAINS.items() if chain.features)


def plan(part: str, runs: Path, seed: int, place: list[str]) -> list[Command]:
    """The commands of a part, in order. Each goes on where it was stopped.

    ``runs``: the folder of runs; ``place``: the arguments that name it.
    """

    def command(module: str, name: str, config: str, *words: str, seed: int = seed) -> Command:
        return module, [f'{FOLDER}/{name}', config, *words, *place, '--seed', str(seed)]

    def train(name: str, config: str, *words: str, seed: int = seed) -> Command:
        return command('vq.train', name, config, *words, '--auto-resume', seed=seed)

    if part == TEACHER:
        return [train(TEACHER, CLASSIFIER)]
    if part == JUDGE:  # not the teacher: figures in the features that a tokenizer has learned from would favour it
        return [train(JUDGE, CLASSIFIER, seed=seed + 1)]
    chain, folder = CHAINS[part], runs / FOLDER
    pixels = f'{part}{chain.decodes}'
    words = [f'teacher_run={folder / TEACHER}'] if chain.features else []
    if dry_run():
        words.append('.trainer.model.tokenizer.quantizer.levels=[4, 4, 4]' if part == 'fsq' else f'codebook_size={TINY_CODES}')
    generator = ['configs/digits/ar.py', f'tokenizer_run={folder / pixels}', f'iters={STEPS}']
    count = DRAWN // 10 if dry_run() else DRAWN
    return [
        train(part, chain.config, *words),
        *([train(pixels, 'configs/digits/decoder.py', f'tokenizer_run={folder / part}')] if chain.features else []),
        train(f'{part}_probe', 'configs/digits/probe.py', f'tokenizer_run={folder / part}'),
        train(f'{part}_ar', *generator),
        command(
            'vq.sample', f'{part}_ar', *generator, '--load-model-from', str(folder / f'{part}_ar'), '--num-samples', str(count)
        ),
    ]


def line_of(command: Command) -> str:
    """A command as typed."""
    return shlex.join(['python', '-m', command[0], *command[1]])


def note(part: str, runs: Path, commands: list[Command]) -> None:
    """A part is done: these were its commands."""
    atomic.write_text(marker(part, runs), lines_of(commands))


def is_done(part: str, runs: Path, commands: list[Command]) -> bool:
    """Whether these commands were run to their end, and their runs are still there."""
    file = marker(part, runs)
    there = all((runs / words[0]).is_dir() for _, words in commands)
    return there and file.is_file() and file.read_text() == lines_of(commands)


def marker(part: str, runs: Path) -> Path:
    return runs / FOLDER / f'{part}.done'


def lines_of(commands: list[Command]) -> str:
    return ''.join(f'{line_of(command)}\n' for command in commands)
