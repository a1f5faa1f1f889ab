"""The reconstructions of a pass in one file, which ADM's evaluator and ``vq.tools.fid`` read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from vq.core import collectives
from vq.core.errors import ConfigError, RunFailure
from vq.core.random import key_of
from vq.core.records import Batch, Outputs, to_uint8
from vq.interfaces import Callback
from vq.io.adm import write_samples
from vq.io.ranks import run_on_all_ranks
from vq.io.writer import Writer
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import ValidatorLike


@VQCallbackRegistry.register_()
class SamplesCallback(Callback[ValidatorLike]):
    """``file`` in the folder of the run: ``arr_0`` uint8 (N, H, W, 3) and, if the dataset has classes, ``arr_1`` (N,).

    Samples are in the order of the dataset, each once, for any batch size and number of ranks. Samples that could not be
    read are missing. ``images``: 'reconstruction', or 'input' for a file of the originals. Each rank writes its pictures to a
    part file of its own. At the end the main rank, which must have access to all part files, joins them, one picture at a
    time.
    """

    phase = 'pictures'

    def __init__(self, file: str = 'samples.npz', images: Literal['reconstruction', 'input'] = 'reconstruction') -> None:
        if images not in ('reconstruction', 'input'):
            raise ConfigError(f"SamplesCallback writes '{images}'", "It writes 'reconstruction' or 'input'.")
        self.file, self.images = file, images
        self._open = contextlib.ExitStack()

    def before_run(self) -> None:
        self._open.close()
        self._writer: Writer | None = None
        self._keys: list[int] = []
        self._categories: list[int] = []
        self._shape: tuple[int, int, int] | None = None

    def _part(self, rank: int) -> Path:
        path = Path(self.runner.work_dir) / self.file
        return path.with_name(f'.{path.name}.part-{rank}')

    @torch.no_grad()
    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        made = batch.pixels() if self.images == 'input' else outputs.reconstruction
        if made is None:
            raise ConfigError('this model makes no reconstructions to write', "Leave out the samples, or write 'input'.")
        pixels = (made if made.dtype == torch.uint8 else to_uint8(made)).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self._shape = self._shape or pixels.shape[1:]
        if pixels.shape[1:] != self._shape:
            raise ConfigError(
                f'images of {self._shape[1]} x {self._shape[0]} and of {pixels.shape[2]} x {pixels.shape[1]} pixels',
                'A file of samples holds pictures of one size: resize them.',
            )
        if self._writer is None:
            self._part(0).parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._open.enter_context(Writer(self._part(collectives.rank())))
        self._writer.write(pixels.tobytes())
        self._keys += batch.key.tolist()
        if batch.category is not None:
            self._categories += batch.category.tolist()

    def after_run(self) -> None:
        self._open.close()  # writes the part file to the end
        parts = collectives.all_gather_object((self._keys, self._categories, self._shape))
        try:
            run_on_all_ranks(lambda: self._join(parts) if collectives.is_main() else None, 'writing the samples')
        finally:
            self._part(collectives.rank()).unlink(missing_ok=True)

    def _join(self, parts: list[tuple[list[int], list[int], tuple[int, int, int] | None]]) -> None:
        shapes = {shape for _, _, shape in parts if shape is not None}
        if len(shapes) != 1:
            raise RunFailure(
                f'the ranks have pictures of {len(shapes)} sizes', 'A file of samples holds pictures of one size.'
            )
        (shape,) = shapes
        places: dict[int, tuple[int, int]] = {}  # key -> rank, row in its part; if repeated, the first one counts
        for rank, (keys, _, _) in enumerate(parts):
            for row, key in enumerate(keys):
                places.setdefault(key, (rank, row))
        dataset = self.runner.dataset
        numbers = {key: number for number in range(len(dataset)) if (key := key_of(dataset.id_of(number))) in places}
        ordered = [places[key] for key in sorted(places, key=lambda key: numbers.get(key, len(numbers)))]
        known = all(len(categories) == len(keys) for keys, categories, _ in parts)
        labels = {'arr_1': np.array([parts[rank][1][row] for rank, row in ordered], dtype=np.int64)} if known else {}
        write_samples(self.runner.work_dir / self.file, self._pictures(ordered, parts, shape), (len(ordered), *shape), labels)

    def _pictures(
        self,
        ordered: list[tuple[int, int]],
        parts: list[tuple[list[int], list[int], tuple[int, int, int] | None]],
        shape: tuple[int, int, int],
    ) -> Iterator[np.ndarray]:
        files: dict[int, np.ndarray] = {}
        for rank, row in ordered:
            if rank not in files:
                path, count = self._part(rank), len(parts[rank][0])
                if not path.is_file() or path.stat().st_size != count * int(np.prod(shape)):
                    raise RunFailure(
                        f'the pictures of rank {rank} are not at {path}', 'All ranks must write to one folder: see --work-dir.'
                    )
                files[rank] = np.memmap(path, np.uint8, 'r', 0, (count, *shape))
            yield files[rank][row]
