"""Forbidden code: unpickling, evaluation of text, swallowed errors, traces of one machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.sources import ROOT, files, tree
from tools import check_files

FOLDERS = ('vq', 'tools', 'benchmarks', 'configs')
# configs and command lines are code by design; files of weights, tokens and images are not
EVALUATES = {Path('vq/core/config.py'): 'exec', Path('vq/cli/key_values.py'): 'eval'}
UNPICKLES = {'pickle', 'cPickle', '_pickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal'}


def dotted(node: ast.AST) -> str:
    """A dotted name of the syntax tree as text, such as ``torch.load``."""
    if isinstance(node, ast.Attribute):
        return f'{dotted(node.value)}.{node.attr}'
    return node.id if isinstance(node, ast.Name) else ''


def keyword(call: ast.Call, name: str) -> object:
    """The constant value of a keyword argument; None if it is missing or not a constant."""
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def is_silent(handler: ast.ExceptHandler) -> bool:
    return all(
        isinstance(step, ast.Pass) or (isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant))
        for step in handler.body
    )


def problems_of_call(call: ast.Call, path: Path) -> list[str]:
    name = dotted(call.func)
    found = []
    if name in ('eval', 'exec', 'builtins.eval', 'builtins.exec'):
        if EVALUATES.get(path) != name:
            found.append(f'{name} evaluates text')
    elif name.endswith('load') and name.split('.')[0] in ('torch', 'th') and keyword(call, 'weights_only') is not True:
        found.append(f'{name} without weights_only=True')
    elif name in ('yaml.load', 'yaml.unsafe_load', 'yaml.full_load', 'torch.jit.load', 'torch.package.PackageImporter'):
        found.append(f'{name} runs what a file says')
    elif name in ('os.system', 'os.popen'):
        found.append(f'{name} goes through a shell')
    for given in call.keywords:
        if given.arg in ('trust_remote_code', 'allow_pickle', 'shell') and keyword(call, given.arg) is not False:
            found.append(f'{name} with {given.arg}')
    return found


def only_errors(path: Path, module: str) -> bool:
    """Whether a module is only imported for its exceptions: ``except pickle.UnpicklingError``."""
    uses = sum(isinstance(node, ast.Name) and node.id == module for node in ast.walk(tree(path)))
    errors = sum(
        isinstance(node, ast.Attribute) and dotted(node.value) == module and node.attr.endswith('Error')
        for node in ast.walk(tree(path))
    )
    return uses == errors > 0


def problems(path: Path) -> list[str]:
    found = []
    for node in ast.walk(tree(path)):
        new: list[str] = []
        if isinstance(node, ast.Call):
            new = problems_of_call(node, path)
        elif isinstance(node, ast.Import):
            unpickles = [alias for alias in node.names if alias.name.split('.')[0] in UNPICKLES]
            new = [f'imports {alias.name}' for alias in unpickles if not only_errors(path, alias.asname or alias.name)]
        elif isinstance(node, ast.ImportFrom):
            names = {f'{node.module}.{alias.name}' for alias in node.names}
            new = [f'imports {node.module}'] if (node.module or '').split('.')[0] in UNPICKLES else []
            new += [f'imports {name} by its bare name' for name in names & {'torch.load', 'yaml.load', 'os.system'}]
        elif isinstance(node, ast.ExceptHandler):
            new = ['bare except'] if node.type is None else []
            new += ['an error passes in silence'] if is_silent(node) else []
        found += [f'{path}:{node.lineno}: {problem}' for problem in new]
    return found


def test_source_is_safe():
    found = [problem for path in files(*FOLDERS) for problem in problems(path)]
    assert not found, '\n'.join(found)


@pytest.mark.parametrize(
    'text',
    [
        'torch.load(f)',
        'torch.load(f, weights_only=False)',
        'torch.load(f, weights_only=flag)',
        'from torch import load',
        'torch.jit.load(f)',
        'yaml.load(f)',
        'import pickle',
        'import pickle\npickle.UnpicklingError, pickle.load(f)',
        'from joblib import load',
        'def f():\n    import shelve',
        'eval(text)',
        'builtins.exec(text)',
        'AutoModel.from_pretrained(name, trust_remote_code=True)',
        'AutoModel.from_pretrained(name, trust_remote_code=yes)',
        'numpy.load(f, allow_pickle=True)',
        'subprocess.run(line, shell=True)',
        'os.system(line)',
        'try:\n    f()\nexcept:\n    raise',
        'try:\n    f()\nexcept OSError:\n    pass',
        'try:\n    f()\nexcept OSError:\n    ...',
    ],
)
def test_the_walk_sees(text, tmp_path, monkeypatch):
    monkeypatch.setattr('tests.sources.ROOT', tmp_path)
    path = Path(f'{tmp_path.name}.py')  # trees are kept by path
    (tmp_path / path).write_text(text)
    assert len(problems(path)) == 1


@pytest.mark.parametrize(
    'text',
    [
        'torch.load(f, weights_only=True)',
        'model.eval()',
        'import pickle\npickle.UnpicklingError',
        'numpy.load(f, allow_pickle=False)',
        'yaml.safe_load(f)',
        'json.load(f)',
    ],
)
def test_the_walk_lets_pass(text, tmp_path, monkeypatch):
    monkeypatch.setattr('tests.sources.ROOT', tmp_path)
    path = Path(f'{tmp_path.name}.py')
    (tmp_path / path).write_text(text)
    assert not problems(path)


# what is committed


def committed() -> list[str]:
    done = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip('not a git checkout')
    return [name for name in done.stdout.split('\0') if (ROOT / name).is_file()]


INDEX = re.compile(
    r'--(extra-)?index-url|(?<![\w-])index[-_]url\s*=|--find-links|pythonhosted\.org|://[^\s/]*(pypi|nexus|artifactory|mirror)[^\s/]*/'
)


def test_committed_files_pass_the_hygiene_check(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = {name: bad for name in committed() if (bad := check_files.problems(Path(name)))}
    assert not found


def test_committed_files_name_no_package_index():
    here = str(Path(__file__).resolve().relative_to(ROOT))
    found = [
        f'{name}:{number}'
        for name in committed()
        if name != here
        for number, line in enumerate((ROOT / name).read_text(errors='replace').splitlines(), 1)
        if INDEX.search(line)
    ]
    assert not found


@pytest.mark.parametrize('path', ['work/main/x', 'root/cache', 'home/someone/data'])
def test_hygiene_check_sees_paths_of_a_machine(tmp_path, path):
    file = tmp_path / 'a.txt'
    file.write_text(f'see /{path}\n')
    assert check_files.problems(file) == ['a path of one machine']


@pytest.mark.parametrize(
    'line',
    [
        'pip install --index-url https://x',
        'index-url = https://x',
        'https://my-pypi.example/simple',
        'https://files.pythonhosted.org/x',
    ],
)
def test_index_pattern_sees(line):
    assert INDEX.search(line)


def test_run_data_and_weights_stay_out_of_the_repository():
    assert not [
        name for name in committed() if name.endswith(('.pth', '.pt', '.ckpt', '.safetensors', '.npz', '.npy', '.pkl'))
    ]
