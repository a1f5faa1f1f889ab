"""Parts with weights of their own files."""

from __future__ import annotations

from pathlib import Path


class Pretrained:
    """Two phases: constructors never read a file; ``load_pretrained`` does, once, after building."""

    frozen: bool = True  # not trained: checkpoints leave the part out, and record the hashes of its files instead

    def load_pretrained(self) -> None:
        raise NotImplementedError

    def pretrained_files(self) -> list[Path]:
        """The files that ``load_pretrained`` reads. Checkpoints record their hashes if the part is frozen."""
        raise NotImplementedError
