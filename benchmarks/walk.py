"""Packages of ``vq`` on the call path from ``vq.load`` to tokens, and calls from a lower into a higher layer.

    python benchmarks/walk.py [TREE]            train a tiny run in TREE (default: this checkout), load it, tokenize images
    python benchmarks/walk.py --quick           the same, with calls summed by package instead of by file

``vq.load(RUN).tokenize(images)`` runs once in a new process of TREE, and every call between functions of ``vq/`` is recorded.
Calls during imports are ignored, such as class bodies and registrations. Frames of torch and of Python's library are skipped,
so the caller of a module's ``forward`` is the function that called the module.

room        a folder or file directly below ``vq/`` with a called function, including ``vq/__init__`` (the door)
floor       the layer of the room in the order of imports of the design, with ``core`` lowest and commands highest; the door
            is on the lowest floor, since every file may import it
climb       a called function on a higher floor than the calling file, if that file imports it by name anywhere. The user's
            ``vq.load(...)`` counts as a call by the door.
handed up   a call to a higher floor without such an import: the registry calls the constructor that a config names, or a base
            class calls a method of a subclass. The lower floor does not depend on the higher one, so this is not a climb.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _common import arguments, finish, machine, must_be_equal, table
from _same_trees import ROOT, ask, checkout, python

AIM = {'rooms': 12, 'climbs': 1}
FLOORS = (
    '__init__ core interfaces registries',
    'io nn data teachers',
    'encoders decoders quantizers losses discriminators conditioners generators denoisers sampling metrics',
    'tokenizers',
    'tasks',
    'strategies runners recipes',
    'assembly',
    'loading launch report demo',
    'cli',
    'tools',
    'train val test sample inference fid config data web training __main__',
)
FLOOR = {room: floor for floor, rooms in reversed(list(enumerate(FLOORS))) for room in rooms.split()}  # 'data' is the package


@dataclasses.dataclass(frozen=True)
class Call:
    """``function`` of ``file`` calls ``called`` of ``there``."""

    file: str
    function: str
    there: str
    called: str

    @property
    def rises(self) -> bool:
        return floor(self.there) > floor(self.file)

    def is_import(self, imports: Iterable[Iterable[str]]) -> bool:
        """Whether ``file`` imports the called function or its module."""
        names = {tuple(name) for name in imports}
        return (module_name(self.there), self.called.partition('.')[0]) in names or (module_name(self.there), '') in names

    def __str__(self) -> str:
        return f'{self.file} {self.function} -> {self.there} {self.called}'


def room(file: str) -> str:
    return Path(file).parts[0].removesuffix('.py')


def floor(file: str) -> int:
    if room(file) not in FLOOR:
        raise SystemExit(f'vq/{room(file)} has no floor yet: add it to FLOORS of walk.py')
    return FLOOR[room(file)]


def module_name(file: str) -> str:
    parts = ('vq', *Path(file).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def walked(tree: Path, iters: int = 2) -> dict[str, Any]:
    """Train a run, and return the record of the calls from loading to tokens."""
    with tempfile.TemporaryDirectory() as scratch:
        short = ['--override', f'.trainer.iters:{iters}']
        python(tree, ['-m', 'vq.train', 'walk', 'configs/digits/vq_ema.py', *short], Path(scratch), tiny=True)
        return ask(tree, '_same_walk.py', {'run': str(Path(scratch, 'work_dirs', 'dry_run', 'walk'))})


def summary(calls: dict[Call, int], by_room: bool) -> list[tuple[str, str, int]]:
    """(from -> to, first call, number of calls), in the order of first calls."""
    found: dict[str, tuple[str, int]] = {}
    for call, count in calls.items():
        here, there = (room(call.file), room(call.there)) if by_room else (call.file, call.there)
        if here != there:
            way = f'{here} -> {there}'
            first, before = found.get(way, (f'{call.function} -> {call.called}', 0))
            found[way] = (first, before + count)
    return [(way, first, count) for way, (first, count) in found.items()]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('tree', nargs='?', type=Path, default=ROOT, metavar='TREE')
    options = parser.parse_args()
    where, tree = machine(), checkout(options.tree)
    answer = walked(tree)
    must_be_equal('tokens with and without the recorder', answer['same_tokens'])
    calls = {Call(*names): count for *names, count in answer['calls']}
    table(f'the walk through {tree}', ('way', 'first call', 'calls'), summary(calls, options.quick))
    rising = {call: call.is_import(answer['imports'][call.file]) for call in calls if call.rises}
    climbs = sorted({(call.there, call.called, call.file): str(call) for call, climbs in rising.items() if climbs}.values())
    handed = sorted(str(call) for call, climbs in rising.items() if not climbs)
    rooms = sorted({room(file) for call in calls for file in (call.file, call.there)})
    files = {call.there for call in calls}
    functions = {(call.there, call.called) for call in calls}
    for title, lines in (('climbs', climbs), ('handed up, no climbs', handed)):
        print(f'\n{title}:', *(lines or ['none']), sep='\n  ')
    imported = sorted({room(module.removeprefix('vq.').replace('.', '/')) for module in answer['modules']})
    print(f'\n{len(rooms)} rooms (aim: at most {AIM["rooms"]}): {", ".join(rooms)}')
    print(f'{len(climbs)} climbs (aim: at most {AIM["climbs"]}); {len(files)} files, {len(functions)} functions')
    print(f'imported on the way: {len(answer["modules"])} modules of {len(imported)} rooms')
    figures = {'rooms': rooms, 'climbs': climbs, 'handed_up': handed, 'files': len(files), 'functions': len(functions)}
    imports = {'modules': len(answer['modules']), 'rooms': imported}
    finish('walk', options.quick, where, {'tree': str(tree), 'aim': AIM, **figures, 'imported': imports})


if __name__ == '__main__':
    main()
