"""Start-up times: ``--help``, composing a config, ``import vq``; against torch and mmengine.

    python benchmarks/startup.py
    python benchmarks/startup.py --quick

Each row is a separate process, started in turns. ``--help`` must not import torch, which is checked first. Composing is timed
in a process that has imported everything: the first call, and the median of later calls. mmengine reads the same values from
one flat file. Ours is timed with that file, and with the config's own files and their bases.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import REPEATS, Times, arguments, finish, machine, must_be_equal, rounded, table

from vq.core.config import PyConfig, packaged_configs, plain
from vq.core.errors import ConfigError

HELP_LIMIT, COMPOSE_LIMIT = 0.300, 0.060  # limits of the design, seconds on an idle machine

COMMANDS = {
    'python -c pass': ['-c', 'pass'],
    'import vq': ['-c', 'import vq'],
    'python -m vq.train --help': ['-m', 'vq.train', '--help'],
    'python -m vq.config --help': ['-m', 'vq.config', '--help'],
    'vq --help': ['-m', 'vq', '--help'],
    'vq __complete': ['-m', 'vq', '__complete', 'train', 'new', 'digits/ar.py', 'tok'],
    'import mmengine.config': ['-c', 'import mmengine.config'],
    'import torch': ['-c', 'import torch'],
}

WHAT_HELP_IMPORTS = """
import sys
from vq.cli.train import main
try:
    main(['--help'])
except SystemExit:
    pass
print([name for name in ('torch', 'numpy', 'todd') if name in sys.modules], file=sys.stderr)
"""

COMPOSE = """
import json, statistics, sys, time
LOADER
def once():
    start = time.perf_counter()
    load()
    return time.perf_counter() - start
first = once()
rest = sorted(once() for _ in range(REPEATS))
print(json.dumps([first, rest[len(rest) // 2]]))
"""
LOADERS = {
    'vq, from its files': 'from vq.assembly.compose import compose\nload = lambda: compose(sys.argv[1], {}, {}, tiny=False)',
    'vq, one flat file': 'from vq.assembly.compose import compose\nload = lambda: compose(sys.argv[2], {}, {}, tiny=False)',
    'mmengine, one flat file': 'from mmengine.config import Config\nload = lambda: Config.fromfile(sys.argv[2])',
}


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{arguments} failed:\n{done.stderr}')
    return done


def measure(arguments: list[str], times: Times) -> None:
    """Wall time and CPU time of one process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run(arguments)
    times.wall.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    times.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def largest_config() -> tuple[str, PyConfig]:
    """The packaged config that composes to the longest text, among those without required options."""
    found: dict[str, PyConfig] = {}
    for file in sorted(packaged_configs().glob('**/*.py')):
        try:
            found[str(file.relative_to(packaged_configs()))] = PyConfig.load(file)
        except ConfigError as error:
            if 'needs the option' not in error.message:
                raise
    name = max(found, key=lambda key: len(found[key].dumps()))
    return name, found[name]


def compose_times(name: str, flat: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of the first composition and of later compositions, medians over processes."""
    loaders = {side: text for side, text in LOADERS.items() if 'mmengine' not in text or importlib.util.find_spec('mmengine')}
    firsts: dict[str, list[float]] = {side: [] for side in loaders}
    laters: dict[str, list[float]] = {side: [] for side in loaders}
    for _ in range(repeats):
        for side, loader in loaders.items():
            script = COMPOSE.replace('LOADER', loader).replace('REPEATS', str(REPEATS))
            first, later = json.loads(run(['-c', script, name, str(flat)]).stdout)
            firsts[side].append(first)
            laters[side].append(later)
    return {
        side: {
            'first_ms': rounded(1e3 * sorted(firsts[side])[repeats // 2]),
            'later_ms': rounded(1e3 * sorted(laters[side])[repeats // 2]),
        }
        for side in loaders
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    where = machine()
    repeats = REPEATS if options.quick else 15
    imported = run(['-c', WHAT_HELP_IMPORTS]).stderr.strip()
    must_be_equal('modules that --help imports, of torch, numpy, todd, and none', imported == '[]', imported)
    mmengine = importlib.util.find_spec('mmengine') is not None
    commands = {name: line for name, line in COMMANDS.items() if 'mmengine' not in name or mmengine}
    times = {name: Times() for name in commands}
    for _ in range(repeats):
        for name, line in commands.items():
            measure(line, times[name])
    name, config = largest_config()
    with tempfile.TemporaryDirectory() as folder:
        flat = Path(folder) / 'flat.py'
        flat.write_text(config.dumps())
        must_be_equal(f'{name} and its flat form compose to equal values', plain(PyConfig.load(flat)) == plain(config))
        if mmengine:
            from mmengine.config import Config

            must_be_equal('mmengine reads the same from it', plain(Config.fromfile(flat).to_dict()) == plain(config))
        composing = compose_times(name, flat, repeats)
    report(options.quick, where, times, name, composing)


def report(quick: bool, where: dict[str, Any], times: dict[str, Times], name: str, composing: dict[str, Any]) -> None:
    torch_time = times['import torch'].median
    table(
        'a process, from start to end',
        ('', 'ms', 'cpu ms', 'of import torch'),
        [(side, 1e3 * found.median, 1e3 * found.cpu_median, found.median / torch_time) for side, found in times.items()],
    )
    print(f'  promised: --help under {1e3 * HELP_LIMIT:.0f} ms')
    ours = composing['vq, from its files']['later_ms']
    table(
        f'composing {name}, imports done',
        ('', 'first, ms', 'later, ms', 'x ours'),
        [(side, found['first_ms'], found['later_ms'], found['later_ms'] / ours) for side, found in composing.items()],
    )
    print(f'  promised: the first under {1e3 * COMPOSE_LIMIT:.0f} ms')
    finish(
        'startup',
        quick,
        where,
        {'processes': {side: found.figures() for side, found in times.items()}, 'composing': {'config': name, **composing}},
    )


if __name__ == '__main__':
    main()
