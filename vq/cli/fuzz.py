"""Damaged and hostile files, read as commands read them: ``python -m vq.tools.fuzz [--seed N] [--seconds S]``."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError
from vq.core.random import python_stream

if TYPE_CHECKING:
    from vq.cli.fuzzing.forms import Form

COUNTS = {'images': 2000, 'checkpoints': 300, 'shards': 500, 'weights': 200, 'statistics': 120, 'annotations': 200}
QUICK = 10  # the quick form reads one in so many
HOSTILE, REWRITTEN = 0.15, 0.25  # of the cases: whole files made to hurt; files written anew with other content
MOSTLY_REWRITTEN = ('annotations',)  # nearly every change of a byte breaks the syntax of JSON, and says little

EXAMPLES = """
examples:
  python -m vq.tools.fuzz --seed 3 --seconds 600
  python -m vq.tools.fuzz --quick
  python -m vq.tools.fuzz --only annotations
  python -m vq.tools.fuzz --only images:17 --keep failures
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.fuzz',
        'Damage files in every way that disks, networks and attackers do, and read them as the commands do, each in a\n'
        'process of its own. No file may end in a traceback, hang, take more memory than the stated bound, run code, or\n'
        'be accepted with other content, unless its format has no checksum, which the table names.',
    )
    parser.epilog = EXAMPLES
    parser.add_argument('--seed', type=int, default=0, help='seed and number determine a case')
    parser.add_argument('--seconds', type=float, default=3600.0, help='stop after this time; all kinds advance together')
    parser.add_argument('--quick', action='store_true', help=f'one case in {QUICK}')
    parser.add_argument('--only', metavar='KIND[:N]', help='one kind alone, or one case')
    parser.add_argument('--keep', metavar='FOLDER', type=Path, help='keep the files of failures there')
    return parser


@dataclasses.dataclass
class Case:
    """One damaged file."""

    kind: str
    number: int
    form: Form
    damage: str
    rewritten: bool  # its content was made anew, so that no checksum tells

    def __str__(self) -> str:
        return f'{self.kind}:{self.number} {self.form.name}, {self.damage}'


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    environment.prepare()
    started = time.monotonic()
    tally: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in COUNTS}
    named: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix='vq_fuzz_') as scratch:
        bench = Bench(Path(scratch), options.seed)
        for kind, number in order(options):
            if time.monotonic() - started > options.seconds:
                break
            case, result, text = bench.run(kind, number)
            tally[kind][result] += 1
            if result == 'named':
                named[f'{case.form.name}: {"written anew" if case.rewritten else "no checksum is compared"}'] += 1
            elif result not in ('refused', 'equal'):
                failures.append(f'{case}: {result}: {text}')
                print(f'FAILED {failures[-1]:.400}', flush=True)
                if options.keep:
                    bench.keep(options.keep / f'{kind}_{number}')
        print_table(tally, named, bench.peaks, time.monotonic() - started)
    print(f'seed {options.seed}: {len(failures)} failures' + (', listed above' if failures else ''))
    return 1 if failures else 0


def order(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Kinds and numbers of the cases. All kinds advance together, so that a time limit cuts all of them alike."""
    kind, sign, number = (options.only or '').partition(':')
    if options.only and (kind not in COUNTS or (sign and not number.isdecimal())):
        raise UserError(f"'{options.only}' is no case", f'Give KIND or KIND:NUMBER; kinds are {", ".join(COUNTS)}.')
    if sign:
        yield kind, int(number)
        return
    counts = {kind: count // QUICK if options.quick else count for kind, count in COUNTS.items()}
    counts = {kind: counts[kind]} if options.only else counts
    places = [((number + 0.5) / count, kind, number) for kind, count in counts.items() for number in range(count)]
    yield from ((kind, number) for _, kind, number in sorted(places))


class Bench:
    """Makes the undamaged files once, copies them for each case, damages the copy and has it read."""

    def __init__(self, scratch: Path, seed: int) -> None:
        from vq.cli.fuzzing.forms import FORMS

        self.scratch, self.seed = scratch, seed
        self.peaks: collections.Counter[str] = collections.Counter()  # kind -> bytes
        self.forms = FORMS
        self.expected: dict[str, str] = {}
        for kind, forms in FORMS.items():
            for number, form in enumerate(forms):
                path = self.original(kind, number)
                path.parent.mkdir(parents=True)
                form.make(path)
                self.expected[str(path)] = form.read(path)

    def original(self, kind: str, number: int) -> Path:
        form = self.forms[kind][number]
        suffix = f'.{form.name.split()[0].lower()}' if kind == 'images' else ''
        return self.scratch / 'originals' / kind / str(number) / (f'image{suffix}' if suffix else form.name)

    def run(self, kind: str, number: int) -> tuple[Case, str, str]:
        """The case, what became of it, and the message or what went wrong."""
        from vq.cli.fuzzing.hostile import CANARY
        from vq.cli.fuzzing.sandbox import read_apart

        place = self.scratch / 'case'
        if place.exists():
            shutil.rmtree(place)
        place.mkdir()
        chosen = number % len(self.forms[kind])
        form, source = self.forms[kind][chosen], self.original(kind, chosen)
        path = place / source.name
        if form.is_folder:
            shutil.copytree(source, path)
        else:
            shutil.copy(source, path)
        case = self.damage(Case(kind, number, form, '', False), path)
        outcome = read_apart(form.read, path, form.bound)
        self.peaks[kind] = max(self.peaks[kind], outcome.peak)
        if any(folder.joinpath(CANARY).exists() for folder in (Path.cwd(), place)):
            return case, 'code', f'{CANARY} was written'
        if outcome.kind != 'accepted':
            return case, outcome.kind, outcome.text
        if outcome.text == self.expected[str(source)]:
            return case, 'equal', ''
        return case, 'named' if case.rewritten or not form.checked else 'other content', outcome.text

    def damage(self, case: Case, path: Path) -> Case:
        """Damage the file, or one file of the folder."""
        from vq.cli.fuzzing import damage, hostile

        stream = python_stream('fuzz', self.seed, case.kind, case.number)
        files = sorted(file for file in path.glob(case.form.files) if file.is_file()) if path.is_dir() else [path]
        file = files[damage.below(stream, len(files))]
        fate = stream.random()
        data = file.read_bytes()
        rewrite = damage.rewriting(data, file.name)
        if fate < HOSTILE:
            names = [*hostile.CONTENTS, *hostile.PLACES]
            name = names[damage.below(stream, len(names))]
            if name in hostile.CONTENTS:
                file.write_bytes(hostile.content(name))
            else:
                file.unlink()
                hostile.PLACES[name](file)
            rewritten = file.name == 'metrics.json'
        elif fate < HOSTILE + (0.6 if case.kind in MOSTLY_REWRITTEN else REWRITTEN) and rewrite is not None:
            name, rewritten = 'written anew', True
            file.write_bytes(rewrite(data, stream))
        else:
            names = [*damage.BYTES]
            name, rewritten = names[damage.below(stream, len(names))], False
            file.write_bytes(damage.BYTES[name](data, stream))
        if rewritten and (path / 'COMPLETE').is_file() and file.name not in ('COMPLETE', 'metrics.json'):
            reseal(path)
        return dataclasses.replace(case, damage=f'{name} ({file.name})', rewritten=rewritten)

    def keep(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        (self.scratch / 'case').rename(folder) if _is_plain(self.scratch / 'case') else None


def _is_plain(folder: Path) -> bool:
    return all(path.is_file() or path.is_dir() for path in folder.rglob('*'))


def reseal(checkpoint: Path) -> None:
    """Make the marker fit the files, as an attacker would."""
    import json

    from vq.io.digest import read_digest

    files = {
        file.name: {'size': file.stat().st_size, 'sha256': read_digest(file)}
        for file in checkpoint.iterdir()
        if file.is_file() and file.name not in ('COMPLETE', 'metrics.json')
    }
    (checkpoint / 'COMPLETE').write_text(json.dumps({'format_version': 2, 'files': files}))


def print_table(
    tally: dict[str, collections.Counter[str]],
    named: collections.Counter[str],
    peaks: collections.Counter[str],
    seconds: float,
) -> None:
    from rich.console import Console
    from rich.table import Table

    from vq.cli.fuzzing.forms import IMAGES, OTHERS

    table = Table(show_edge=False)
    for column in ('', 'cases', 'refused', 'equal', 'other, named', 'failed', 'most memory', 'bound'):
        table.add_column(column, justify='right' if column else 'left')
    for kind, results in tally.items():
        known = [results[name] for name in ('refused', 'equal', 'named')]
        bound = IMAGES if kind == 'images' else OTHERS
        figures = (sum(results.values()), *known, sum(results.values()) - sum(known))
        table.add_row(kind, *map(str, figures), *(f'{size / 2**20:.0f} MiB' for size in (peaks[kind], bound)))
    print()
    Console(width=100).print(table)
    print(f'\nin {seconds:.0f} s. Accepted with other content, because nothing in the file can tell:')
    for name, count in sorted(named.items()):
        print(f'  {count:4d}  {name}')
