"""What a command passes to its runner: name and folder of the run, seed, the composed config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vq.core import collectives
from vq.interfaces import Strategy, Task
from vq.io import atomic


@dataclasses.dataclass
class RunContext:
    """One run of one command."""

    name: str
    work_dir: Path
    seed: int = 3407
    config_text: str = ''  # JSON, see vq/core/config_json.py
    config_name: str = 'config.json'
    preprocessing: dict[str, Any] = dataclasses.field(default_factory=dict)  # of images in evaluation: see vq/io/spec.py
    command: str = ''
    random_weights: bool = False  # a dry run replaced pretrained files by seeded noise
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    begin: Callable[[], None] | None = None  # of the first rank: makes room for the run, once its parts are ready
    announce: Callable[[], None] | None = None  # of the first rank: says what is about to begin, once all is set up
    preflight: bool = False  # check data, metrics and a checkpoint before the first step
    validation: Callable[[Task, Strategy], Any] | None = None  # builds the config's validator around a model in training
    full: Callable[[], Task] | None = None  # in a dry run: builds the model of the full form on the meta device

    def prepare(self) -> None:
        """Make the folder and write the composed config into it."""
        self.make_folder()
        self.keep_config()

    def make_folder(self) -> None:
        """Make the folder; in an earlier one, and in the folders in it, delete the temporary files of killed commands."""
        if collectives.is_main():
            self.work_dir.mkdir(parents=True, exist_ok=True)
            inner = [path for path in self.work_dir.iterdir() if path.is_dir() and not path.is_symlink()]
            for folder in (
                self.work_dir,
                *(path for path in inner if path.name != 'checkpoints'),
            ):  # those have their own rule
                atomic.sweep(folder)
        collectives.barrier()

    def keep_config(self) -> None:
        """Write the composed config into the folder; commands accept this file as a config again."""
        if collectives.is_main():
            atomic.write_text(self.work_dir / self.config_name, self.config_text)
