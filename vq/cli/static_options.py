"""The options of a config, read from the sources of the config and of its recipes. Nothing is imported or executed.

Completion asks for them: composing a config takes half a second, and a key press must not run a stranger's file. What is read
is the name of each option, its values and its meaning; the same options that ``vq config CONFIG --options`` lists.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

RECIPES = Path(__file__).parents[1] / 'recipes'


@dataclasses.dataclass(frozen=True)
class Option:
    name: str
    meaning: str = ''
    values: tuple[str, ...] = ()  # of a Literal or bool


def packaged() -> Path:
    """The folder of shipped configs; as ``vq.core.config.packaged_configs``, which is slow to import."""
    inside = Path(__file__).parents[1] / 'configs'
    return inside if inside.is_dir() else inside.parents[1] / 'configs'


def find(file: str, folder: Path | None = None) -> Path | None:
    """The Python file that CONFIG means: beside the file that names it, in the working directory, or shipped."""
    path, root = Path(file).expanduser(), packaged()
    places = [*([folder / path] if folder else []), Path.cwd() / path, root / path]
    places += [root.joinpath(*path.parts[1:])] if path.parts[:1] == ('configs',) else []
    return next((place for place in places if place.suffix == '.py' and place.is_file()), None)


def options_of(file: str) -> dict[str, Option]:
    """The options of a config by name: of the recipes that it and its bases call, and those that the files read themselves."""
    path = find(file)
    return {} if path is None else dict(_of_file(path, frozenset()))


def _of_file(path: Path, seen: frozenset[Path]) -> Iterator[tuple[str, Option]]:
    tree = _parsed(path)
    if tree is None or path in seen:
        return
    known = _recipes()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            for option in declared(node.func.id):
                yield option.name, option
        elif name := _read(node):
            yield name, Option(name)
    for base in _bases(tree):
        found = find(base, path.parent)
        if found is not None:
            yield from _of_file(found, seen | {path})


def _read(node: ast.AST) -> str:
    """``name`` of ``_kwargs_['name']`` and ``_kwargs_.get('name', ...)``."""
    if isinstance(node, ast.Subscript) and _is_options(node.value):
        key: ast.AST | None = node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ('get', 'pop'):
        key = node.args[0] if node.args and _is_options(node.func.value) else None
    else:
        key = None
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ''


def _is_options(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == '_kwargs_'


def _bases(tree: ast.Module) -> Iterator[str]:
    """Texts in ``_base_`` and in ``PyConfig.load('...')``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(name, ast.Name) and name.id == '_base_' for name in node.targets):
            yield from _texts(node.value, tree)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == 'load' and node.args:
            yield from _texts(node.args[0], tree)


def _texts(node: ast.AST, tree: ast.Module, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """The texts in an expression, and in the expressions that names of the module stand for."""
    for item in ast.walk(node):
        if isinstance(item, ast.Constant) and isinstance(item.value, str):
            yield item.value
        elif isinstance(item, ast.Name) and item.id not in seen:
            for value in _assigned(item.id, tree):
                yield from _texts(value, tree, seen | {item.id})


def _assigned(name: str, tree: ast.Module) -> Iterator[ast.AST]:
    """The expressions that a module assigns to a name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            yield node.value


@functools.cache
def declared(recipe: str) -> tuple[Option, ...]:
    """The options of a recipe, then those of the recipes it calls, as ``vq.core.recipe.Recipe.declared``."""
    path = _recipes().get(recipe)
    tree = None if path is None else _parsed(path)
    function = (
        next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == recipe), None) if tree else None
    )
    if function is None or tree is None:
        return ()
    found = {option.name: option for option in _own(function, tree)}
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            hidden = {name for word in decorator.keywords for name in _texts(word.value, tree)}
            for used in decorator.args:
                for option in declared(used.id) if isinstance(used, ast.Name) else ():
                    if option.name not in hidden:
                        found.setdefault(option.name, option)
    return tuple(found.values())


def _own(function: ast.FunctionDef, tree: ast.Module) -> Iterator[Option]:
    for argument in function.args.kwonlyargs:
        annotation = argument.annotation
        if not isinstance(annotation, ast.Subscript) or not isinstance(annotation.slice, ast.Tuple):
            continue
        kind, meaning, *extras = annotation.slice.elts
        text = meaning.value if isinstance(meaning, ast.Constant) else ''
        values = tuple(_values(kind, tree))
        yield Option(argument.arg, str(text), values)
        for extra in extras:  # short('name'): another name, for typing
            if isinstance(extra, ast.Call) and isinstance(extra.func, ast.Name) and extra.func.id == 'short':
                names = [item.value for item in extra.args if isinstance(item, ast.Constant)]
                yield from (Option(str(name), str(text), values) for name in names)


def _values(kind: ast.AST, tree: ast.Module, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """The values of a Literal, of a bool and of None, through unions and aliases of the module."""
    if isinstance(kind, ast.BinOp):
        yield from _values(kind.left, tree, seen)
        yield from _values(kind.right, tree, seen)
    elif isinstance(kind, ast.Subscript) and isinstance(kind.value, ast.Name) and kind.value.id == 'Literal':
        items = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
        yield from (str(item.value) for item in items if isinstance(item, ast.Constant))
    elif isinstance(kind, ast.Name) and kind.id == 'bool':
        yield from ('True', 'False')
    elif isinstance(kind, ast.Name) and kind.id not in seen:
        for value in _assigned(kind.id, tree):
            yield from _values(value, tree, seen | {kind.id})


@functools.cache
def _recipes() -> dict[str, Path]:
    """Name of a recipe -> its file. Only lines are searched: parsing all files would take longer."""
    found = {}
    for path in sorted(RECIPES.glob('*.py')):
        lines = path.read_text(encoding='utf-8').splitlines()
        for line, text in enumerate(lines):
            if text.startswith('@recipe('):
                definition = next((later for later in lines[line:] if later.startswith('def ')), '')
                found[definition[4:].partition('(')[0]] = path
    return found


def _parsed(path: Path) -> ast.Module | None:
    try:
        return _parsed_at(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, SyntaxError):
        return None


@functools.cache
def _parsed_at(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'))
