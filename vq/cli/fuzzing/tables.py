"""Lists and tables of images, for ``vq.tools.fuzz``: LAION's list, parquet and Arrow files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from vq.cli.fuzzing.annotations import COUNT, Annotated, contents, images_below, pixels
from vq.data.datasets.hugging_face import HuggingFaceDataset
from vq.data.datasets.laion import LAIONAestheticsDataset


def make_list(path: Path) -> None:
    images_below(path, lambda number: f'v2_6.5plus/{number}.png')
    (path / 'annotations').mkdir()
    lines = (f'{number}.png\twords {number}\t6.{number}\thttp://somewhere/{number}.png\n' for number in range(COUNT))
    (path / 'annotations/v2_6.5plus.tsv').write_text(''.join(lines))


def read_list(path: Path) -> list[Any]:
    return contents(LAIONAestheticsDataset(path))


def table() -> Any:
    """A pyarrow table of images, class numbers and captions."""
    import pyarrow

    images = []
    for number in range(COUNT):
        stream = io.BytesIO()
        Image.fromarray(pixels(number)).save(stream, 'PNG')
        images.append({'bytes': stream.getvalue(), 'path': f'{number}.png'})
    return pyarrow.table({'image': images, 'label': [number % 2 for number in range(COUNT)], 'text': ['words'] * COUNT})


def make_parquet(path: Path) -> None:
    from pyarrow import parquet

    path.mkdir()
    parquet.write_table(table(), path / 'train-0.parquet', row_group_size=4, write_page_checksum=True)


def make_arrow(path: Path) -> None:
    import pyarrow

    path.mkdir()
    made = table()
    with pyarrow.OSFile(str(path / 'train.arrow'), 'wb') as file, pyarrow.ipc.new_stream(file, made.schema) as stream:
        stream.write_table(made, max_chunksize=4)


def read_rows(path: Path) -> list[Any]:
    return contents(HuggingFaceDataset(path))


TABLES = (
    Annotated('laion_list', make_list, read_list, 'annotations/*'),
    Annotated('parquet', make_parquet, read_rows, '*', needs='pyarrow'),
    Annotated('arrow', make_arrow, read_rows, '*', needs='pyarrow'),
)
