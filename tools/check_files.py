"""File hygiene for pre-commit: final newline, no trailing blanks, no conflict marks, no large files, no machine paths."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

LARGEST = 500_000  # bytes
CONFLICT = re.compile(rb'^(<{7} |={7}$|>{7} )', re.MULTILINE)
MACHINE_PATH = re.compile(rb'(?<![\w.])/(?:work|root|home/\w+)/[\w.]')


def problems(path: Path) -> list[str]:
    data = path.read_bytes()
    found = []
    if len(data) > LARGEST:
        found.append(f'{len(data)} bytes: keep large files out of the repository')
    if b'\0' in data[:8192]:
        return found  # binary
    if data and not data.endswith(b'\n'):
        found.append('no newline at the end')
    if re.search(rb'[ \t]+$', data, re.MULTILINE):
        found.append('blanks at the end of a line')
    if CONFLICT.search(data):
        found.append('conflict marks')
    if MACHINE_PATH.search(data):
        found.append('a path of one machine')
    return found


def main(files: Sequence[str]) -> int:
    bad = [(name, problem) for name in files if Path(name).is_file() for problem in problems(Path(name))]
    for name, problem in bad:
        print(f'{name}: {problem}')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
