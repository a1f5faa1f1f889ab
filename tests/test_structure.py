"""The structure of the package: layers of imports, third-party imports, sizes of files, signatures of constructors."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT, files, imports, module_name, tree

# which way imports point

LAYERS = [
    'core interfaces registries',
    'io nn data teachers',
    'encoders decoders quantizers losses discriminators conditioners generators denoisers sampling metrics recipes',
    'tokenizers',
    'tasks',
    'strategies runners',
    'assembly',
    'loading launch report demo',
    'web',
    'cli',
    'tools',
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
ENTRY_POINTS = len(LAYERS)
DOORS = [path for path in files('vq') if path.name == '__main__.py' or path.match('vq/tasks/image_tokenization/tokenize.py')]


def part_of(module: str) -> str:
    """``vq.nn.norms`` -> ``nn``."""
    return ([*module.split('.'), ''])[1]


def level_of(module: str) -> int:
    """The layer of a module. Files next to the packages are entry points; ``import vq`` provides the version only."""
    part = part_of(module)
    return LEVEL.get(part, ENTRY_POINTS) if part else 0


def is_ours(module: str) -> bool:
    return module == 'vq' or module.startswith('vq.')


def test_every_package_has_a_layer():
    assert {path.parts[1] for path in files('vq') if len(path.parts) > 2} <= set(LEVEL)


def test_imports_point_one_way():
    wrong = [
        f'{path}:{line} imports {target}'
        for path in files('vq')
        if path not in DOORS and module_name(path) != 'vq'
        for target, _, line in imports(path)
        if is_ours(target) and target != 'vq.__version__' and level_of(target) > level_of(module_name(path))
    ]
    assert not wrong, '\n'.join(wrong)


def test_recipes_stand_on_core_and_io_alone():
    """Recipes and configs only compose: they do not import parts, torch, or code that builds."""
    allowed = {'core', 'io', 'recipes'}
    configs = [path.relative_to(ROOT) for path in sorted((ROOT / 'configs').rglob('*.py'))]
    wrong = [
        f'{path}:{line} imports {target}'
        for path in (*files('vq/recipes'), *configs)
        for target, _, line in imports(path)
        if (is_ours(target) and part_of(target) not in allowed) or target.partition('.')[0] == 'torch'
    ]
    assert not wrong, '\n'.join(wrong)


def test_packages_do_not_import_each_other_in_circles():
    graph: dict[str, set[str]] = {}
    for path in files('vq'):
        if path not in DOORS and (here := part_of(module_name(path))):
            graph.setdefault(here, set()).update(
                there for target, _, _ in imports(path) if is_ours(target) and (there := part_of(target)) != here and there
            )
    while leaves := [name for name, targets in graph.items() if not targets & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f'circles among {graph}'


def test_only_its_command_imports_the_page():
    importers = {
        path for path in files('vq') for target, _, _ in imports(path) if part_of(target) == 'web' and is_ours(target)
    }
    assert {path for path in importers if path.parts[1] != 'web'} == {Path('vq/cli/web.py')}


def test_the_launcher_stands_on_the_core_alone():
    ours = {part_of(target) for path in files('vq/launch') for target, _, _ in imports(path) if is_ours(target)}
    assert ours <= {'core', 'launch'}


def test_doors_are_nothing_but_doors():
    for path in DOORS:
        assert {target for target, _, _ in imports(path) if target != 'sys'} <= {
            target for target, _, _ in imports(path) if target.startswith('vq.cli.')
        }, path
        assert len(tree(path).body) <= 4, path


@pytest.mark.parametrize('module', ['vq.metrics', 'vq.runners.trainer', 'vq.no_such_package'])
def test_the_rule_sees_imports_of_every_form(module, tmp_path, monkeypatch):
    """The checker itself reports each of these imports in a file of ``vq/nn``."""
    monkeypatch.setattr('tests.sources.ROOT', tmp_path)
    (tmp_path / 'vq/nn').mkdir(parents=True)
    parent, _, name = module.rpartition('.')
    relative = '.' * 2 + module.removeprefix('vq.')
    forms = (
        f'import {module}',
        f'from {parent} import {name}',
        f'def f():\n    from {relative} import x',
        f'if 1:\n    import {module}',
    )
    for number, text in enumerate(forms):  # a file of its own for each: trees are kept by path
        path = Path(f'vq/nn/{tmp_path.name}_{number}.py')
        (tmp_path / path).write_text(text)
        assert any(is_ours(target) and level_of(target) > level_of('vq.nn.made_up') for target, _, _ in imports(path)), text


# who imports what

CORE = {'torch', 'numpy', 'PIL', 'safetensors', 'rich', 'sklearn'}
OPTIONAL = {  # package -> where it may be imported; inside functions only, so that nobody needs what he does not use
    'torch_xla': ('vq/strategies/xla.py',),
    'mmengine': ('vq/io/', 'vq/runners/callbacks/'),
    'mmcv': ('vq/data/',),
    **dict.fromkeys(('boto3', 'botocore', 'urllib3'), ('vq/io/s3.py',)),
    'lpips': ('vq/losses/', 'vq/metrics/'),
    'pytorch_fid': ('vq/losses/', 'vq/metrics/'),
    'transformers': ('vq/teachers/', 'vq/encoders/', 'vq/generators/', 'vq/conditioners/texts/'),
    'open_clip': ('vq/teachers/', 'vq/encoders/'),
    'timm': ('vq/teachers/', 'vq/encoders/'),
    **dict.fromkeys(
        ('webdataset', 'datasets', 'pyarrow', 'h5py', 'lmdb', 'cv2', 'simplejpeg', 'torchvision'),
        ('vq/data/', 'vq/cli/fuzzing/'),
    ),
    **dict.fromkeys(('wandb', 'tensorboard'), ('vq/runners/callbacks/',)),
    'gradio': ('vq/cli/',),
    'isal': ('vq/io/crc.py',),
    'torch_fidelity': ('vq/cli/',),
    'triton': ('vq/quantizers/',),
    'threadpoolctl': ('vq/report/',),  # comes with scikit-learn
}


def test_third_party_packages_are_imported_where_the_design_says():
    wrong = []
    for path in files('vq'):
        for target, at_import, line in imports(path):
            package = target.partition('.')[0]
            if package in sys.stdlib_module_names or package == 'vq' or package in CORE:
                continue
            if package == 'todd':
                allowed = path == Path('vq/core/door.py')
            else:
                allowed = not at_import and str(path).startswith(OPTIONAL.get(package, ()))
            if not allowed:
                wrong.append(f'{path}:{line} imports {target}' + (' at module level' if at_import else ''))
    assert not wrong, '\n'.join(wrong)


# what an import costs


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize('module', ['vq', 'vq.cli.arguments', 'vq.core.config', 'vq.registries', 'vq.assembly.compose'])
def test_module_comes_without_torch(module):
    done = run('-c', f'import sys, {module}; print("torch" in sys.modules)')
    assert done.stdout.strip() == 'False', done.stderr


ENTRIES = sorted(
    {module_name(path) for path in files('vq') if "if __name__ == '__main__'" in (ROOT / path).read_text()}
    | {module_name(path.parent) for path in files('vq') if path.name == '__main__.py'}
)


def test_entry_points_are_found():
    assert {'vq.train', 'vq.val', 'vq.test', 'vq.inference', 'vq.config', 'vq.launch.main'} <= set(ENTRIES)


@pytest.mark.parametrize('module', ENTRIES)
def test_help_answers_without_torch_and_todd(module):
    done = run('-X', 'importtime', '-m', module, '--help')
    assert done.returncode == 0 and 'usage' in done.stdout.lower(), done.stderr[-2000:]
    loaded = {
        line.rpartition('|')[2].strip().partition('.')[0]
        for line in done.stderr.splitlines()
        if line.startswith('import time:')
    }
    assert 'argparse' in loaded
    assert not loaded & {'torch', 'todd', 'numpy'}


# files


def test_no_file_is_longer_than_500_lines():
    long = {
        str(path): lines
        for path in files('vq', 'configs', 'tests', 'tools', 'benchmarks')
        if (lines := len((ROOT / path).read_text().splitlines())) > 500
    }
    assert not long


def test_packages_below_vq_have_an_init_file():
    """``walk_packages`` skips a folder without one, so its items would not be registered."""
    folders = {path.parent for path in files('vq') if path.parts[:2] != ('vq', 'configs')}
    assert not [folder for folder in folders if not (ROOT / folder / '__init__.py').is_file()]


# constructors of registered items


def registered():
    from vq.registries import VQRegistry

    VQRegistry.names()
    return [
        pytest.param(item, id=f'{registry.__name__}.{name}')
        for registry in VQRegistry.tree()
        for name, item in sorted(registry.data.items())
        if item.__module__.startswith('vq.')
    ]


@pytest.mark.parametrize('item', registered())
def test_constructor_is_explicit_and_annotated(item):
    from vq.core.parameters import parameters_of

    function = item.__init__ if isinstance(item, type) else item
    if function is object.__init__:
        return
    parameters = list(inspect.signature(function).parameters.values())[isinstance(item, type) :]
    assert not [p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)], 'takes *args or **kwargs'
    assert not [p.name for p in parameters if p.annotation is p.empty], 'parameters without annotation'
    parameters_of(item)  # raises where an annotation does not resolve


def test_annotations_of_parts_name_interfaces_not_implementations():
    """A parameter whose value is a module of ours is built by its interface; another annotation would not be built."""
    from torch import nn

    from vq.core.parameters import alternatives, parameters_of, strip
    from vq.core.registry import elements_of, registry_for
    from vq.registries import VQRegistry

    wrong = []
    for param in registered():
        for parameter in parameters_of(param.values[0]).values():
            elements = [elements_of(parameter.annotation, value) for value in ([], {})]
            for annotation in [parameter.annotation, *filter(None, elements)]:
                wrong += [
                    f'{param.id}: {parameter.name}: {kind.__name__}'
                    for kind in map(strip, alternatives(annotation))
                    if isinstance(kind, type) and issubclass(kind, nn.Module) and registry_for(annotation, VQRegistry) is None
                ]
    assert not wrong, wrong


def test_every_file_opens_with_a_docstring():
    assert not [
        str(path)
        for path in files('vq', 'configs', 'tools', 'benchmarks')
        if not ast.get_docstring(tree(path)) and (ROOT / path).read_text().strip()
    ]


def test_no_placeholders_stay_behind():
    mark = re.compile(r'\b(TODO|FIXME|XXX|HACK)\b')
    assert not [
        f'{path}:{number}'
        for path in files('vq', 'configs', 'tools', 'benchmarks')
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        if mark.search(line)
    ]


# XLA

XLA_FILES = {Path('vq/strategies/xla.py'), Path('vq/nn/lazy_tensors.py')}
# list strategies, or optional packages, by name
XLA_NAMES = {Path('vq/recipes/strategy.py'), Path('vq/assembly/memory.py'), Path('vq/cli/doctor_checks.py')}


def words_of_xla(path: Path) -> list[str]:
    """Names, attributes, imports and texts of the code that speak of XLA, docstrings and comments aside."""
    found, docstrings = [], set()
    for node in ast.walk(tree(path)):  # a body comes before what is in it
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and isinstance(node.body[0], ast.Expr):
            docstrings.add(id(node.body[0].value))
        if id(node) not in docstrings:
            fields = [value for value in vars(node).values() if isinstance(value, str)]
            found += [value for value in fields if 'xla' in value.lower() and ' ' not in value]  # not prose: help, messages
    return found


def test_xla_stands_behind_the_strategy():
    """Everything else is written against tensors and the strategy, so another back end is one more strategy."""
    for path in files('vq'):
        if path not in XLA_FILES:
            allowed = {'xla', 'XLAStrategy', 'torch_xla'} if path in XLA_NAMES else set()
            assert set(words_of_xla(path)) <= allowed, path


@pytest.mark.parametrize(
    'text', ['import torch_xla', "x = device.type == 'xla'", 'from a import cut_xla', 'def on_xla(): ...']
)
def test_the_rule_sees_xla_in_every_form(text, tmp_path, monkeypatch):
    monkeypatch.setattr('tests.sources.ROOT', tmp_path)
    path = Path(f'{tmp_path.name}.py')  # trees are kept by path
    (tmp_path / path).write_text(f'"""Of xla."""\n{text}\n')
    assert words_of_xla(path)
