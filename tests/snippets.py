"""The code blocks of a document, run as a reader would run them: in order, in an empty folder.

- ``bash``: run by bash, which stops at the first command that fails.
- ``python`` that opens with a comment that is a file name (``# mine.py``): written to that file.
- other ``python``: run, with one namespace for all blocks of a document. A line ``EXPRESSION  # -> TEXT`` asserts that the
  repr of the expression is TEXT.
- any other language is not run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

_FENCE = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_FILE = re.compile(r'# ([\w/.-]+\.\w+)\n')
_PROMISE = re.compile(r'^(?P<expression>\S.*?)  # -> (?P<text>.*)$', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Snippet:
    """One code block."""

    document: str
    line: int  # of its first line of code
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that a python block is written to."""
        match = _FILE.match(self.text) if self.language == 'python' else None
        return match[1] if match else None

    @property
    def is_run(self) -> bool:
        return self.language in ('bash', 'python')

    def __str__(self) -> str:
        return f'{self.document}:{self.line}'


def read_snippets(document: str) -> list[Snippet]:
    """All code blocks of a document of this repository, in order."""
    text = (ROOT / document).read_text()
    return [Snippet(document, text[: match.start(2)].count('\n') + 1, match[1], match[2]) for match in _FENCE.finditer(text)]


class Reader:
    """Runs the blocks of a document in ``folder``, with ``programs`` first on the PATH."""

    def __init__(self, folder: Path, programs: Path | None = None) -> None:
        self.folder, self.programs = folder, programs
        self.namespace: dict[str, Any] = {'__name__': '__main__'}

    def run(self, snippet: Snippet) -> str:
        """Run one block. Returns the output of bash."""
        if snippet.file is not None:
            (self.folder / snippet.file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / snippet.file).write_text(snippet.text)
        elif snippet.language == 'bash':
            return self._bash(snippet)
        elif snippet.language == 'python':
            self._python(snippet)
        return ''

    def _bash(self, snippet: Snippet) -> str:
        done = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', snippet.text],
            cwd=self.folder,
            env=environment(self.programs),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f'{snippet}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}'
        return done.stdout + done.stderr

    def _python(self, snippet: Snippet) -> None:
        with inside(self.folder):
            source = '\n' * (snippet.line - 1) + _with_promises(snippet.text)  # tracebacks then show lines of the page
            code = compile(source, str(ROOT / snippet.document), 'exec')
            self.namespace['_promise'] = _promise(snippet)
            exec(code, self.namespace)


def environment(programs: Path | None = None) -> dict[str, str]:
    """A shell in which this package is installed."""
    first = [] if programs is None else [str(programs)]
    path = os.pathsep.join([*first, str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    modules = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH', '')]))
    inherited = {name: value for name, value in os.environ.items() if name != 'DRY_RUN'}
    # one thread: these small networks gain nothing from two
    return {'OMP_NUM_THREADS': '1', **inherited, 'PATH': path, 'PYTHONPATH': modules}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With ``folder`` as the working directory, and first on sys.path."""
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))


def _with_promises(text: str) -> str:
    return _PROMISE.sub(lambda match: f'_promise(({match["expression"]}), {match["text"]!r})', text)


def _promise(snippet: Snippet) -> Any:
    def check(value: object, text: str) -> None:
        assert str(value) == text, f'{snippet}: the page promises {text}, and it is {value}'

    return check
