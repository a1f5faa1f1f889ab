"""A registry imports the modules that register a name, and no others."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.snippets import environment
from vq.core.errors import ConfigError
from vq.core.registering import registering
from vq.core.registry import Registry, TreeMeta
from vq.registries import VQRegistry


def test_the_modules_of_every_shipped_part_are_found_in_the_sources() -> None:
    VQRegistry.names()
    shipped = [(registry, name, item) for registry in VQRegistry.tree() for name, item in registry.data.items()]
    checked = 0
    for registry, name, item in shipped:
        package = registry.__dict__.get('package', '')
        if package and f'{item.__module__}.'.startswith(f'{package}.'):
            assert item.__module__ in registering(package)[name]
            checked += 1
    assert checked > 150


@pytest.mark.slow
def test_a_name_imports_its_own_module_alone() -> None:
    code = (
        "import sys; from vq.registries import VQRegistry; VQRegistry.parse('VQQuantizerRegistry.FiniteScalarQuantizer');"
        "print(*(name for name in sys.modules if name.startswith('vq.quantizers.')))"
    )
    told = subprocess.run([sys.executable, '-c', code], env=environment(), capture_output=True, text=True, check=True)
    assert 'vq.quantizers.finite_scalar' in told.stdout and 'vq.quantizers.gumbel' not in told.stdout


ITEMS = """
from mine_root import Root
@Root.register_()
class Alone: pass
@Root.register_('Given')
@staticmethod
def own(): return 1
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TreeMeta:
    """A registry of the package ``mine_parts``, whose module ``broken`` cannot be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'mine_parts').mkdir()
    (tmp_path / 'mine_parts' / '__init__.py').write_text('')
    (tmp_path / 'mine_parts' / 'broken.py').write_text("raise ImportError('must stay out')\n")
    for name in [name for name in sys.modules if name.startswith('mine_parts')]:
        monkeypatch.delitem(sys.modules, name)
    registering.cache_clear()

    class Root(Registry):
        package = 'mine_parts'

    monkeypatch.setitem(sys.modules, 'mine_root', types.SimpleNamespace(Root=Root))
    return Root


def test_a_module_that_is_not_needed_is_not_imported(root: TreeMeta, tmp_path: Path) -> None:
    (tmp_path / 'mine_parts' / 'good.py').write_text(ITEMS)
    assert root.parse('Alone')[1].__module__ == 'mine_parts.good'
    assert root.parse('Given')[1].__name__ == 'own'
    with pytest.raises(ImportError, match='must stay out'):
        root.parse('Unknown')


def test_all_modules_with_a_name_are_imported_so_that_a_second_item_is_seen(root: TreeMeta, tmp_path: Path) -> None:
    for name in ('one', 'two'):
        (tmp_path / 'mine_parts' / f'{name}.py').write_text(ITEMS)
    with pytest.raises(ConfigError, match="has an item 'Alone' already"):
        root.parse('Alone')
