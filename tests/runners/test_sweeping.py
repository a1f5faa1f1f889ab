"""Hidden temporary files that killed commands left in a run folder are deleted by the next command; those of others stay."""

from __future__ import annotations

import os
from pathlib import Path

from vq.io import atomic
from vq.runners.context import RunContext


def test_hidden_temporary_files_are_swept(tmp_path: Path) -> None:
    run = tmp_path / 'run'
    (run / 'pictures').mkdir(parents=True)
    (run / 'checkpoints').mkdir()
    names = ('.grid.png.tmp-elsewhere-1-0a0b0c0d', 'pictures/.iter_5_val.png.tmp-elsewhere-7-0a0b0c0e')
    for name in names:
        (run / name).write_bytes(b'left by a killed command')
        os.utime(run / name, (0, 0))
    kept = [run / '.gitignore', run / 'pictures' / 'a.png', run / f'.b.tmp-{atomic._host()}-{os.getppid()}-0a0b0c0d']
    for path in kept:
        path.write_bytes(b'')
    RunContext('run', run).prepare()
    assert not any((run / name).exists() for name in names)
    assert all(path.exists() for path in kept), 'the last one belongs to a process that is alive'
    RunContext('new', tmp_path / 'new').prepare()  # a folder that does not exist yet
    assert (tmp_path / 'new' / 'config.json').is_file()
