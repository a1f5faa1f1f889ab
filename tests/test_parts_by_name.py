"""Parts are imported by name from the packages that hold them, and ``docs/api.md`` lists them as they are."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import Counter

import pytest

from tests.sources import ROOT, files
from tools import api_pages
from vq.registries import VQRegistry

LAZY = sorted(
    '.'.join(path.parts[:-1])
    for path in files('vq')
    if path.name == '__init__.py' and 'parts(__name__)' in (ROOT / path).read_text()
)


def own_parts() -> list[tuple[str, str, object]]:
    """(package, name, part) of every registered part."""
    VQRegistry.names()
    return [
        (registry.package, name, part)
        for registry in VQRegistry.tree()
        for name, part in registry.data.items()
        if part.__module__.startswith('vq.')
    ]


def test_every_part_is_imported_from_its_package() -> None:
    for package, name, part in own_parts():
        holder = max((lazy for lazy in LAZY if f'{package}.'.startswith(f'{lazy}.')), key=len, default=package)
        module = importlib.import_module(holder)
        assert getattr(module, name) is part and name in dir(module)
        if holder != package or holder in LAZY:
            assert name in module.__all__


@pytest.mark.slow
def test_packages_come_without_torch_and_load_only_what_is_asked_for() -> None:
    code = f"""
import importlib, sys
for name in {LAZY}: importlib.import_module(name)
assert not {{'torch', 'todd', 'numpy'}} & set(sys.modules)
from vq.runners import progress
assert 'torch' not in sys.modules and 'vq.runners.trainer' not in sys.modules
from vq.quantizers import VectorQuantizer
assert VectorQuantizer.__module__ == 'vq.quantizers.vector'
assert 'vq.runners.trainer' not in sys.modules and 'vq.losses.perceptual' not in sys.modules
from vq.losses import *
assert L1Loss.__name__ == 'L1Loss'
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_any_package_may_be_the_first() -> None:
    """No circles: its parts are asked for in a process where no other package of parts is loaded."""
    code = f"""
import importlib, os, sys, torch
failed = []
for name in {LAZY}:
    child = os.fork()
    if not child:
        try:
            module = importlib.import_module(name)
            assert all(hasattr(module, part) for part in module.__all__) and module.__all__
            code = 0
        except BaseException as error:
            print(name, repr(error), file=sys.stderr)
            code = 1
        os._exit(code)
    failed += [name] * bool(os.waitpid(child, 0)[1])
sys.exit(len(failed))
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_misspelt_name_is_told() -> None:
    with pytest.raises(ImportError, match='VektorQuantizer'):
        from vq.quantizers import VektorQuantizer  # noqa: F401
    with pytest.raises(AttributeError, match="did you mean 'VectorQuantizer'"):
        _ = importlib.import_module('vq.quantizers').VektorQuantizer


def test_parts_of_users_are_no_attributes() -> None:
    from vq.registries import VQQuantizerRegistry

    mine = type('MineOfThisTest', (), {'__module__': 'mine'})
    VQQuantizerRegistry.register_()(mine)
    try:
        assert 'MineOfThisTest' not in dir(importlib.import_module('vq.quantizers'))
    finally:
        del VQQuantizerRegistry.data['MineOfThisTest']


def test_the_page_of_parts_is_up_to_date() -> None:
    assert api_pages.PAGE.read_text() == api_pages.page(), 'write it again: python tools/api_pages.py'


def test_the_page_has_every_part_and_every_parameter() -> None:
    from vq.core.parameters import parameters_of

    text, parts = api_pages.page(), own_parts()
    count = Counter(name for _, name, _ in parts)
    for _, name, part in parts:
        entry = text.partition(f'- **`{name}`**')[2].partition('\n- **')[0].partition('\n## ')[0]
        assert entry, name
        if count[name] == 1:
            assert all(f'`{parameter}: ' in entry for parameter in parameters_of(part)), name
        assert part.__doc__ and api_pages.first_line(part), f'{name} has no docstring'
    assert ' at 0x' not in text
