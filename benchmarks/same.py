"""Check that two checkouts of this project compose, build and train the same: a regression test for refactorings.

    python benchmarks/same.py OLD [NEW]         all three checks; NEW is by default the checkout of this script
    python benchmarks/same.py OLD --compose --only 'digits/*'             one check, on some entries
    python benchmarks/same.py --quick           six entries and two runs; without OLD, NEW is compared with itself

compose     every entry of OLD (as defined by tests/shipped.py), in full and in tiny form, without options and with the option
            sets of benchmarks/_same_cases.py. The rules of benchmarks/_same_rules.py normalize both sides; --rules prints the
            description of each rule. Remaining differences are printed.
build       trainer and validator of every entry, in both forms, on the meta device: classes, tensors, which of them are
            trained, and attributes with plain values.
train       seeded runs by the public command; the SHA-256 of name, dtype, shape and bytes of all tensors of the last
            checkpoint, with the moving average. Both sides have the same number of threads.

Each side runs in separate processes. Exit code 0: the same; 1: something differs.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from _common import arguments, finish, machine, must_be_equal, rounded, table
from _same_cases import QUICK_RUNS, RUNS, Case, Run, cases
from _same_rules import ADDED, ALLOWED, RULES, Context, Difference, built_differences, differences, normal, remaining
from _same_runs import train, unequal, whole
from _same_trees import ROOT, SIDES, ask, checkout, side_by_side

WORKER = '_same_worker.py'
QUICK_ENTRIES = 6
BATCH = 40  # cases to build per process, since its answer is large
SHOWN = 12  # differences to print per entry
WIDTH = 160  # characters to print of a value

Trees = Mapping[str, Path]
Found = dict[str, list[tuple[Difference, list[str]]]]  # entry -> (difference, forms with this difference)


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument('old', nargs='?', type=Path, metavar='OLD', help='a checkout (default: NEW)')
    parser.add_argument(
        'new', nargs='?', type=Path, default=ROOT, metavar='NEW', help='another (default: that of this script)'
    )
    for mode in MODES:
        parser.add_argument(
            f'--{mode}', dest='modes', action='append_const', const=mode, help='only this, or several of these'
        )
    parser.add_argument('--only', nargs='+', metavar='PATTERN', help="entries and runs of these names, such as 'digits/*'")
    parser.add_argument('--threads', type=int, default=1, help='of each process that trains')
    parser.add_argument('--rules', action='store_true', help='print what is taken for equal')
    return parser.parse_args()


def ask_both(trees: Trees, question: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return side_by_side(trees, lambda _, tree: ask(tree, WORKER, question))


def compose(trees: Trees, entries: Sequence[str], options: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    asked = list(cases(entries, with_options=not options.quick))
    answers = ask_both(trees, {'mode': 'compose', 'cases': asked})
    defaults = {side: answer['defaults'] for side, answer in answers.items()}
    found: Found = {}
    for case, old, new in zip(asked, *(answers[side]['configs'] for side in SIDES), strict=True):
        note(found, case, compared(old, new, Context(case['entry'], defaults, case['options'], case['tiny'])))
    show('composed', found)
    figures = {'entries': len(entries), 'cases': len(asked), 'different': sorted(found)}
    return not found, figures


def compared(old: Any, new: Any, context: Context) -> list[Difference]:
    """Differences between two composed configs. A side without a config is a difference, even if both sides have none."""
    for side in (old, new):
        if '(error)' in side or '(vanished)' in side:
            return [Difference('(composing)', *(told(one) for one in (old, new)))]
    return remaining(differences(normal(old), normal(new)), context)


def told(config: Mapping[str, Any]) -> str:
    return config.get('(error)') or ('the file is gone' if '(vanished)' in config else 'is composed')


def build(trees: Trees, entries: Sequence[str], options: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    asked = list(cases(entries, with_options=False))
    found: Found = {}
    counted = {'strict': 0, 'loose': 0}
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        answers = ask_both(trees, {'mode': 'build', 'cases': batch})
        for case, old, new in zip(batch, *(answers[side]['built'] for side in SIDES), strict=True):
            context = Context(case['entry'], options=case['options'], tiny=case['tiny'])
            note(found, case, remaining(built_differences(old, new), context))
            for kind in counted:
                counted[kind] += len(old[kind].keys() & new[kind].keys())
    show('built', found)
    figures = {'entries': len(entries), 'cases': len(asked), 'compared': counted, 'different': sorted(found)}
    return not found, figures


def training(trees: Trees, entries: Sequence[str], options: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    runs = chosen_runs(QUICK_RUNS if options.quick else RUNS, options.only)
    with tempfile.TemporaryDirectory() as scratch:

        def work(side: str, tree: Path) -> Any:
            folder = Path(scratch, side)
            folder.mkdir()
            return train(tree, runs, folder, options.threads)

        found = side_by_side(trees, work)
    figures: dict[str, Any] = {}
    rows = []
    for run in runs:
        old, new = (found[side][run.name] for side in SIDES)
        figures[run.name] = {'old': whole(old), 'new': whole(new), 'equal': old == new}
        rows.append((run.name, whole(old)[:16], whole(new)[:16], 'equal' if old == new else 'DIFFERENT'))
    table('trained: SHA-256 of the last checkpoint', ('run', 'old', 'new', ''), rows)
    for run in runs:
        names = unequal(*(found[side][run.name] for side in SIDES))
        if names:
            print(f'{run.name}: {len(names)} tensors differ: {", ".join(names[:4])}{" ..." if len(names) > 4 else ""}')
    return all(run['equal'] for run in figures.values()), {'runs': figures, 'threads': options.threads}


def chosen_runs(runs: Sequence[Run], only: Sequence[str] | None) -> list[Run]:
    """The runs with matching names, preceded by the runs whose tokenizers they use."""
    names = {run.name for run in runs if matches(run.name.removeprefix('tiny/'), only)}
    names |= {run.upon for run in runs if run.name in names and run.upon}
    return [run for run in runs if run.name in names]


def matches(name: str, only: Sequence[str] | None) -> bool:
    return only is None or any(fnmatch.fnmatch(name.removesuffix('.py'), pattern.removesuffix('.py')) for pattern in only)


MODES: dict[str, Callable[[Trees, Sequence[str], argparse.Namespace], tuple[bool, dict[str, Any]]]] = {
    'compose': compose,
    'build': build,
    'train': training,
}


def note(found: Found, case: Case, differing: Sequence[Difference]) -> None:
    given = ' '.join(f'{key}:{value!r}' for key, value in case['options'].items())
    where = f'{"tiny" if case["tiny"] else "full"}{f" with {given}" if given else ""}'
    for difference in differing:
        known = found.setdefault(case['entry'], [])
        seen = next((forms for one, forms in known if one == difference), None)
        if seen is None:
            known.append((difference, [where]))
        else:
            seen.append(where)


def show(what: str, found: Found) -> None:
    """Print each entry with differences, and each difference once, with the forms that have it."""
    for entry, known in found.items():
        print(f'\n{entry}, {what}: {len(known)} differences')
        for difference, where in known[:SHOWN]:
            more = f' and {len(where) - 2} more' if len(where) > 2 else ''
            print(f'  {difference.path}  ({"; ".join(where[:2])}{more})')
            print(f'    old  {short(difference.old)}\n    new  {short(difference.new)}')
        if len(known) > SHOWN:
            print(f'  ... and {len(known) - SHOWN} more')


def short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= WIDTH else f'{text[:WIDTH]} ...'


def rules() -> Iterator[str]:
    yield 'Both sides are brought into one form:'
    yield from (f'  {rule.apply.__name__}: {rule.says}' for rule in RULES)
    yield 'Differences that may remain:'
    yield from (f'  {allowed.applies.__name__}: {allowed.says}' for allowed in ALLOWED)
    yield 'Added on purpose:'
    yield from (f'  {entry}: {path}: {why}' for entry, path, why in ADDED)


def main() -> int:
    options = parse()
    if options.rules:
        print('\n'.join(rules()))
        return 0
    where = machine()
    trees = {'old': checkout(options.old or options.new), 'new': checkout(options.new)}
    for side, tree in trees.items():
        print(f'{side}: {tree}')
    answers = ask_both(trees, {'mode': 'entries'})
    entries = [entry for entry in answers['old']['entries'] if matches(entry, options.only)]
    must_be_equal(
        'each side runs its own code', all(Path(answers[side]['imported']).is_relative_to(trees[side]) for side in SIDES)
    )
    added = sorted(set(answers['new']['entries']) - set(answers['old']['entries']))
    if added:
        print(f'only new, not compared: {", ".join(added)}')
    if options.quick:
        entries = entries[:QUICK_ENTRIES]
    equal, figures = True, {}
    for mode in options.modes or MODES:
        started = time.perf_counter()
        same, found = MODES[mode](trees, entries, options)
        seconds = rounded(time.perf_counter() - started)
        print(f'\n{mode}: {"the same" if same else "NOT THE SAME"} ({seconds:g} s)')
        equal, figures[mode] = equal and same, {**found, 'equal': same, 'seconds': seconds}
    finish('same', options.quick, where, {'equal': equal, **{f'{side}_tree': str(trees[side]) for side in SIDES}, **figures})
    return 0 if equal else 1


if __name__ == '__main__':
    raise SystemExit(main())
