"""``python -m vq.demo understanding``: does a tokenizer gain from understanding? The chain of a paper on digits, on one page.

Trains a teacher, four tokenizers with as many tokens and codes, and on each a probe and the same generator. A second call goes
on where the first was stopped, and makes the page again if all is done.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from vq.cli import arguments
from vq.cli.errors import command, say
from vq.core import environment
from vq.demo.beside import Beside
from vq.demo.chains import FOLDER, NEEDS_TEACHER, PARTS, TEACHER, is_done, line_of, note, plan

BODIES = {'vq.train': 'vq.cli.train', 'vq.sample': 'vq.cli.sample'}  # module that a user starts -> module of its body


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.demo', 'understanding: compare tokenizers of pixels with tokenizers of the features of a teacher, on digits.'
    )
    parser.add_argument('--seed', type=int, default=3407)
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    parser.add_argument('--overwrite', action='store_true', help='start over: delete the runs of an earlier call')
    parser.add_argument('--only', choices=PARTS, default=None, help='run the commands of this part alone, and write no page')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # the parts run beside each other: a core for each
    environment.prepare()
    from vq.assembly.building import runs_folder

    runs, place = runs_folder(options.work_dir), ['--work-dir', options.work_dir] if options.work_dir else []
    if options.only:
        return run_part(options.only, runs, options.seed, place)
    started, folder = time.perf_counter(), runs / FOLDER
    if options.overwrite and folder.is_dir():
        print(f'$ rm -r {folder}', flush=True)
        shutil.rmtree(folder)
    words = ['understanding', '--seed', str(options.seed), *place, '--only']
    left = [part for part in PARTS if not is_done(part, runs, plan(part, runs, options.seed, place))]
    failed = run_parts(left, words, environment.usable_cores(), folder)
    if failed:
        say(f'the demo stopped: {failed} failed', 'See its output above. The same command goes on with what is left.')
        return 1
    return write_page(options.seed, runs, place, started)


def run_part(part: str, runs: Path, seed: int, place: list[str]) -> int:
    """Run the commands of a part in this process, one after the other."""
    steps = plan(part, runs, seed, place)
    for step in steps:
        print(f'\n$ {line_of(step)}', flush=True)
        module, words = step
        code = int(importlib.import_module(BODIES[module]).main(words))
        if code:
            say(f'{part}: this command ended with exit code {code}', f'See above, or run it alone: {line_of(step)}')
            return code
    note(part, runs, steps)
    return 0


def run_parts(parts: list[str], words: list[str], workers: int, folder: Path) -> str:
    """Run parts, ``workers`` at a time, each in a process of its own. Returns the name of one that failed, or ''."""
    stopped = threading.Event()

    def run(part: str, teacher: Future[int] | None) -> int:
        if stopped.is_set() or (teacher is not None and teacher.result()):
            return 0
        print(f'{part}: started, logs in {folder / part}*/log.txt; its output follows when it is done', flush=True)
        with Beside('vq.demo', [*words, part]) as beside:
            code, seconds = beside.finish()
        print(f'{part}: {"failed" if code else "done"} after {seconds:.0f} s', flush=True)
        if code:
            stopped.set()
        return code

    with ThreadPoolExecutor(workers) as pool:  # the teacher is the first: whoever waits for it has started after it
        futures: dict[str, Future[int]] = {}
        try:
            for part in parts:
                futures[part] = pool.submit(run, part, futures.get(TEACHER) if part in NEEDS_TEACHER else None)
            wait(futures.values(), return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
    return next((part for part, future in futures.items() if future.result()), '')


def write_page(seed: int, runs: Path, place: list[str], started: float) -> int:
    import platform

    import torch

    import vq
    from vq.demo.understanding import gather
    from vq.report.understanding import build_page, sentence

    machine = [
        ('cores', str(environment.usable_cores())),
        ('threads', os.environ.get('OMP_NUM_THREADS', '')),
        ('processor', platform.machine()),
        ('Python', platform.python_version()),
        ('torch', torch.__version__),
        ('vq', vq.__version__),
        ('seed', str(seed)),
    ]
    facts = gather(runs, seed, place, machine)
    page = runs / FOLDER / 'report.html'
    build_page(facts).save(page)
    print(
        f'\nDone in {time.perf_counter() - started:.0f} s.\n{sentence(facts)}\n'
        f'Open the report in a browser: {page}\n{page.resolve().as_uri()}',
        flush=True,
    )
    return 0
