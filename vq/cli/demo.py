"""A demo of the toolkit, from images to tokens and to new images: ``make demo``, or ``python -m vq.demo``.

Runs the commands of a user on the handwritten digits that scikit-learn ships, and writes one page with the results.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq.cli import arguments, demo_layout, understanding
from vq.cli.errors import command, say
from vq.core import environment
from vq.demo.beside import Beside

NAME, CONFIG = 'demo', 'configs/digits/demo.py'
CLASSIFIER, ITS_CONFIG = 'demo_classifier', 'configs/ic/digits.py'
GENERATOR, UNGUIDED, GENERATOR_CONFIG = 'demo_ar', 'demo_ar_unguided', 'configs/digits/ar.py'
DRAWN = 500  # new digits of each kind: 50 of each class
BODIES = {
    'vq.train': 'vq.cli.train',
    'vq.val': 'vq.cli.val',
    'vq.test': 'vq.cli.test',
    'vq.sample': 'vq.cli.sample',
    'vq.tasks.image_tokenization.tokenize': 'vq.cli.tokenize',
}  # module that a user starts -> module of its body


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.demo', 'Train a small tokenizer and a generator of its tokens on the CPU, and write a report about them.'
    )
    parser.epilog = (
        'python -m vq.demo understanding [--help]: compare tokenizers of pixels and of features; docs/understanding.md\n'
        'python -m vq.demo layout [--help]: digits drawn where boxes ask for them'
    )
    parser.add_argument('--seed', type=int, default=3407)
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    parser.add_argument(
        '--override',
        action='extend',
        nargs='*',
        default=[],
        metavar='KEY:EXPR|KEY::TEXT',
        help="values of the tokenizer's config, passed to each of its commands, e.g. .trainer.iters:200",
    )
    parser.add_argument(
        '--generator-iters', type=int, default=None, metavar='N', help="steps of the generator (default: its config's)"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ['understanding']:
        return understanding.main(words[1:])
    if words[:1] == ['layout']:
        return demo_layout.main(words[1:])
    options = make_parser().parse_args(words)
    os.environ.setdefault(
        'OMP_NUM_THREADS', '1'
    )  # two threads are no faster for networks this small: they wait for each other
    environment.prepare()
    from vq.assembly.building import runs_folder

    started, runs = time.perf_counter(), runs_folder(options.work_dir)
    clear([runs / f'{NAME}_tokenize', runs / f'{NAME}_tokenize_train'])
    done: list[tuple[str, float]] = []
    steps = [(shlex.join(['python', '-m', module, *words]), module, words) for module, words in plan(options, runs)]
    with contextlib.ExitStack() as stack:
        beside: dict[str, Beside] = {}
        for line, module, words in steps:
            if may_run_beside(line):
                print(f'\nRunning in parallel on another core, shown below when done: {line}', flush=True)
                beside[line] = stack.enter_context(Beside(module, words))
        for line, module, words in steps:
            print(f'\n$ {line}', flush=True)
            code, seconds = beside[line].finish() if line in beside else run(module, words)
            if code:
                say(f'the demo stopped: this command ended with exit code {code}', f'See above, or run it alone: {line}')
                return code
            done.append((line, seconds))
    print(f'\nk-means on raw patches for comparison, figures of new digits, and {runs / NAME / "report.html"}', flush=True)
    summary, report = write_report(options, runs, done)
    page = shlex.join(['python', '-m', 'vq.web', *(['--work-dir', options.work_dir] if options.work_dir else [])])
    print(
        f'\nDone in {time.perf_counter() - started:.0f} s. {summary}\n'
        f'Try these models on a page in the browser: {page}\n'
        'Train one for its first tab, which draws digits where boxes ask for them: make demo-layout (8 minutes)\n'
        f'Open the report in a browser: {report}\n{report.resolve().as_uri()}',
        flush=True,
    )
    return 0


def plan(options: argparse.Namespace, runs: Path) -> list[tuple[str, list[str]]]:
    """(module, arguments) of each command, in order."""
    place = ['--work-dir', options.work_dir] if options.work_dir else []
    common = [*place, *(['--seed', str(options.seed)] if options.seed != 3407 else [])]
    start, changes = [NAME, CONFIG], options.override
    weights = ['--load-model-from', str(runs / NAME)]

    def overriding(*more: str) -> list[str]:
        return ['--override', *changes, *more] if changes or more else []

    tokenize = 'vq.tasks.image_tokenization.tokenize'
    return [
        ('vq.train', [*start, '--overwrite', *common, *overriding()]),
        ('vq.train', [CLASSIFIER, ITS_CONFIG, '--overwrite', *common]),
        ('vq.val', [CLASSIFIER, ITS_CONFIG, *common]),
        ('vq.val', [*start, *common, *overriding()]),
        ('vq.test', [*start, *weights, '--visual', *common, *overriding('.validator.dataset.split::test')]),
        (tokenize, [*start, *weights, *common, *overriding()]),
        (tokenize, [*start, *weights, '--train', *common, *overriding()]),
        *plan_generator(options, runs, common),
    ]


def plan_generator(options: argparse.Namespace, runs: Path, common: list[str]) -> list[tuple[str, list[str]]]:
    """The commands that train the generator on the tokens of the last command, and sample with and without guidance."""
    settings = [f'tokenizer_run::{runs / NAME}', f'tokens::{runs / f"{NAME}_tokenize_train"}']
    if options.generator_iters is not None:
        settings.append(f'iters:{options.generator_iters}')
    start = [GENERATOR_CONFIG, '--config-options', *settings]
    count = DRAWN // 10 if arguments.dry_run() else DRAWN
    draw = [*start, '--overwrite', '--num-samples', str(count), '--load-model-from', str(runs / GENERATOR), *common]
    return [
        ('vq.train', [GENERATOR, *start, '--overwrite', *common]),
        ('vq.sample', [GENERATOR, *draw]),
        ('vq.sample', [UNGUIDED, *draw, '--guidance', '1']),
    ]


def may_run_beside(line: str) -> bool:
    """Train the classifier while the tokenizer trains, if there is a second core; not in a dry run, which is too short."""
    return f' vq.train {CLASSIFIER} ' in line and environment.usable_cores() > 1 and not arguments.dry_run()


def run(module: str, words: list[str]) -> tuple[int, float]:
    """Exit code and seconds of a command, run in this process to save importing torch again."""
    started = time.perf_counter()
    code = int(importlib.import_module(BODIES[module]).main(words))
    return code, time.perf_counter() - started


def clear(folders: Sequence[Path]) -> None:
    """Remove tokens of an earlier demo: they are of another tokenizer, and the tokenize command would refuse the folder."""
    old = [str(folder) for folder in folders if folder.is_dir()]
    if old:
        print(f'$ {shlex.join(["rm", "-r", *old])}', flush=True)
    for folder in old:
        shutil.rmtree(folder)


def overrides_of(options: argparse.Namespace) -> dict[str, Any]:
    """``--override`` as the commands parse it."""
    parser = arguments.parser('vq.demo', '')
    arguments.add_config(parser)
    parsed = parser.parse_args([CONFIG, *(['--override', *options.override] if options.override else [])])
    pairs: dict[str, Any] = parsed.override
    return pairs


def write_report(options: argparse.Namespace, runs: Path, commands: list[tuple[str, float]]) -> tuple[str, Path]:
    """Write the page. Returns its summary and its path."""
    import platform

    import torch

    import vq
    from vq.demo import generator as demo_generator
    from vq.demo.facts import gather
    from vq.report.builder import build_page

    machine = [
        ('cores', str(environment.usable_cores())),
        ('threads', os.environ.get('OMP_NUM_THREADS', '')),
        ('processor', platform.machine()),
        ('system', platform.system()),
        ('Python', platform.python_version()),
        ('torch', torch.__version__),
        ('vq', vq.__version__),
        ('seed', str(options.seed)),
    ]
    overrides, names = overrides_of(options), (NAME, CLASSIFIER, GENERATOR, UNGUIDED)
    facts = gather(runs, (NAME, CLASSIFIER), CONFIG, overrides, options.seed, commands, machine)
    facts.generator = demo_generator.gather(runs, names, CONFIG, overrides, options.seed, commands)
    found = facts.tokenizer
    assert found is not None and found.classifier is not None
    ours, baseline = next(iter(found.held_out.values()))
    assert baseline is not None
    page = build_page(
        facts,
        'vq demo: handwritten digits as 16 tokens, and new ones',
        f'A small convolutional tokenizer, trained from scratch on {found.train_images:,} handwritten digits (those of '
        f'scikit-learn, enlarged from 8 to {found.image_size} pixels). Its codebook is a moving average of encoder '
        'outputs, and unused codes are reset to such outputs. A small transformer then learned these tokens, and samples '
        'new digits of a given class. A classifier, trained for this page on the same digits, names the '
        'reconstructions. Everything on this page was measured by the commands at its end.',
    )
    path = runs / NAME / 'report.html'
    page.save(path)
    named, named_baseline = 100 * ours['recognised'], 100 * baseline['recognised']
    return (
        f'PSNR {ours["psnr"]:.2f} dB on held-out digits (k-means on raw patches: {baseline["psnr"]:.2f} dB), '
        f'codebook usage {100 * ours["codebook_usage"]:.1f} %. A classifier names {100 * found.classifier["top1"]:.1f} % of '
        f'the digits and {named:.1f} % of their reconstructions ({named_baseline:.1f} %); '
        f'FD in its features {ours["fd"]:.2f} ({baseline["fd"]:.2f}).\n{demo_generator.sentence(facts.generator)}'
    ), path
