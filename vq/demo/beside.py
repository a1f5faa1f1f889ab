"""Run a command of the demo in a background process. Its output is held back until ``finish``."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from vq.core import child


class Beside:
    """A background process: started on construction, awaited by ``finish``, terminated at the end of its ``with`` block."""

    def __init__(self, module: str, words: Sequence[str]) -> None:
        self._started, self._seconds, self._said = time.perf_counter(), 0.0, ''
        self._process = subprocess.Popen(
            child.command('-m', module, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)  # a full pipe would block the command
        self._listener.start()

    def _listen(self) -> None:
        self._said, _ = self._process.communicate()
        self._seconds = time.perf_counter() - self._started

    def finish(self) -> tuple[int, float]:
        """Wait for the command and print its output. Returns its exit code and seconds."""
        self._listener.join()
        print(self._said, end='', flush=True)
        return self._process.returncode, self._seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._listener.is_alive():
            self._process.terminate()
        self._listener.join()
