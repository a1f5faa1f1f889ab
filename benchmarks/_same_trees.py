"""Run two checkouts of this project side by side, each in separate processes that import ``vq`` from that checkout only.

``-P`` keeps the folder of a script off sys.path, and PYTHONPATH puts the checkout before an editable install.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
SIDES = ('old', 'new')

T = TypeVar('T')


def checkout(path: Path) -> Path:
    """The absolute ``path``, if it is a checkout of this project."""
    for needed in ('vq/__init__.py', 'configs'):
        if not (path / needed).exists():
            raise SystemExit(f'{path} is no checkout of this project: it has no {needed}')
    return path.resolve()


def environment(tree: Path, threads: int = 1, tiny: bool = False) -> dict[str, str]:
    """The environment of a process of ``tree``. GPUs are hidden, since bitwise equality is only guaranteed on the CPU."""
    kept = {name: value for name, value in os.environ.items() if name not in ('DRY_RUN', 'PYTHONPATH')}
    own = {'PYTHONPATH': str(tree), 'OMP_NUM_THREADS': str(threads), 'CUDA_VISIBLE_DEVICES': ''}
    return {**kept, **own, **({'DRY_RUN': 'True'} if tiny else {})}


def python(
    tree: Path, arguments: Sequence[str], folder: Path, *, threads: int = 1, tiny: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Python with ``tree`` in ``folder``. A failing command ends the benchmark with the last lines of its output."""
    command = [sys.executable, '-P', *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(tree, threads, tiny), capture_output=True, text=True)
    if done.returncode:
        last = '\n'.join((done.stdout + done.stderr).splitlines()[-25:])
        raise SystemExit(f'{tree}: python {" ".join(arguments)} ended with {done.returncode}:\n{last}')
    return done


def ask(tree: Path, worker: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``benchmarks/WORKER`` in a process of ``tree``. It reads ``question`` and writes its answer as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, 'question.json'), Path(folder, 'answer.json')
        asked.write_text(json.dumps(question))
        python(tree, [str(Path(__file__).parent / worker), str(asked), str(answered)], Path(folder))
        answer: dict[str, Any] = json.loads(answered.read_text())
    if not Path(answer['imported']).is_relative_to(tree):
        raise SystemExit(f'{tree} was to answer, and {answer["imported"]} did')
    return answer


def side_by_side(trees: Mapping[str, Path], work: Callable[[str, Path], T]) -> dict[str, T]:
    """Run ``work`` on both checkouts at the same time. It waits for processes, so threads are enough."""
    with ThreadPoolExecutor(len(trees)) as pool:
        running = {side: pool.submit(work, side, tree) for side, tree in trees.items()}
        return {side: found.result() for side, found in running.items()}
