"""Which rooms of the house one passes from ``vq.load`` to tokens, and how often the way leads up.

    python benchmarks/walk.py [TREE]            a tiny run is trained in TREE (default: this checkout), opened and asked
    python benchmarks/walk.py --quick           the same with calls added up by packages in place of files

``vq.load(RUN).tokenize(images)`` runs once in a new process of TREE, and every call between functions of ``vq/`` is recorded.
What runs while modules are imported is left out: class bodies and registrations are no part of the way. Frames of torch and
of Python's library are looked through, so a module's ``forward`` is called by whoever called the module.

room        a folder or file directly below ``vq/`` in which a function was called, ``vq/__init__`` (the door) included
floor       where the room stands in the order of imports that the design gives, ``core`` lowest, commands highest; the door
            is on the lowest, for everything may import it
climb       a called function, on a higher floor than the file that calls it, that this file imports by name, wherever the
            import stands in it. The user's ``vq.load(...)`` is a call by the door.
handed up   a call that leads up without such an import: the registry calls the constructor a config names, a base class
            calls a method of the class below it. The lower floor knows nothing of the higher one, so that is no climb.
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
    'train val test sample inference fid config data web',
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
        """Whether ``file`` names what it calls, or its module, in an import."""
        names = {tuple(name) for name in imports}
        return (module_name(self.there), self.called.partition('.')[0]) in names or (module_name(self.there), '') in names

    def __str__(self) -> str:
        return f'{self.file} {self.function} -> {self.there} {self.called}'


def room(file: str) -> str:
    return Path(file).parts[0].removesuffix('.py')


def floor(file: str) -> int:
    if room(file) not in FLOOR:
        raise SystemExit(f'vq/{room(file)} stands on no floor yet: say in FLOORS of walk.py where it belongs')
    return FLOOR[room(file)]


def module_name(file: str) -> str:
    parts = ('vq', *Path(file).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def walked(tree: Path, iters: int = 2) -> dict[str, Any]:
    """What was recorded on the way to the tokens of a run that is trained for it."""
    with tempfile.TemporaryDirectory() as scratch:
        short = ['--override', f'.trainer.iters:{iters}']
        python(tree, ['-m', 'vq.train', 'walk', 'configs/digits/vq_ema.py', *short], Path(scratch), tiny=True)
        return ask(tree, '_same_walk.py', {'run': str(Path(scratch, 'work_dirs', 'dry_run', 'walk'))})


def summary(calls: dict[Call, int], by_room: bool) -> list[tuple[str, str, int]]:
    """(from -> to, first call, calls) in the order in which the ways are first gone."""
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
