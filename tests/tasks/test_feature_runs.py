"""Runs of VQ-KD and Cluster: a killed run ends with the same bits, ranks agree, FSDP equals DDP, teachers are recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.ranks import GlooPool
from tests.runners.support import assert_same, everything, logged, samples, train
from tests.runners.support import start as start_process
from tests.tasks.feature_runs import train_features, write_feature_config
from tests.tokenizers.patch_teacher import PatchTeacher
from vq.core.errors import UserError
from vq.io.digest import file_digest
from vq.loading import load

pytestmark = pytest.mark.slow

KINDS = pytest.mark.parametrize('kind', ['vqkd', 'cluster'])


def options(kind: str, **values: object) -> list[str]:
    return ['--config-options', f'kind::{kind}', *(f'{name}:{value!r}' for name, value in values.items())]


@KINDS
def test_killed_run_ends_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    """The kill is in step 6, the checkpoint of step 4. The k-means of VQ-KD ran before the first step, and never again."""
    config, file = str(write_feature_config(tmp_path)), str(tmp_path / 'teacher.safetensors')
    save_file(PatchTeacher(patch=8).network.state_dict(), file)
    assert train(str(tmp_path), 'straight', config, *options(kind, teacher_file=file)) == 0
    killed = start_process(tmp_path, 'broken', config, *options(kind, teacher_file=file, kill_at=6))
    assert killed.returncode != 0
    straight, broken = (tmp_path / 'work_dirs' / name for name in ('straight', 'broken'))
    assert (broken / 'checkpoints/iter_4/COMPLETE').exists(), killed.stderr
    assert train(str(tmp_path), 'broken', config, '--auto-resume', *options(kind, teacher_file=file)) == 0
    assert_same(everything(straight / 'checkpoints/iter_8'), everything(broken / 'checkpoints/iter_8'))
    lines = [[{key: line[key] for key in line if key != 'seconds'} for line in logged(run)] for run in (straight, broken)]
    assert lines[0] == lines[1] and samples(straight) == samples(broken)
    starts = [line['step'] for line in logged(broken) if 'kmeans' in line.values()]
    assert starts == ([1] if kind == 'vqkd' else [])
    # the teacher: its digest is there, none of its weights
    state = everything(broken / 'checkpoints/iter_8')['model']
    part = 'teacher' if kind == 'vqkd' else 'tokenizer.encoder.teacher'
    assert len(state) > 1 and not any('teacher' in name for name in state)
    meta = json.loads((broken / 'checkpoints/iter_8/meta.json').read_text())
    assert meta['frozen_parts'] == {part: [file]} and meta['frozen'] == {file: file_digest(file)}
    tokenizer = load(str(broken), trust=True)
    assert tokenizer.tokenize(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 4)
    if kind == 'cluster':  # codes fit no other teacher
        save_file({name: value + 1 for name, value in PatchTeacher(patch=8).network.state_dict().items()}, file)
        with pytest.raises(UserError, match=r"other weights of the frozen part 'tokenizer\.encoder\.teacher'"):
            load(str(broken), trust=True)


@KINDS
def test_ranks_have_the_same_codebook_after_each_of_20_steps(tmp_path: Path, gloo_pool: GlooPool, kind: str) -> None:
    write_feature_config(tmp_path)
    first, second = gloo_pool.run(train_features, str(tmp_path), dict(kind=kind, strategy='ddp', iters=20))
    assert len(first['codebooks']) == len(second['codebooks']) == 20
    for step, (one, other) in enumerate(zip(first['codebooks'], second['codebooks'], strict=True), 1):
        assert torch.equal(one, other), step
    assert not torch.equal(first['codebooks'][0], first['codebooks'][-1])
    assert_same(first['state'], second['state'])


@KINDS
def test_fsdp_equals_ddp(tmp_path: Path, gloo_pool: GlooPool, kind: str) -> None:
    write_feature_config(tmp_path)
    expected, _ = gloo_pool.run(train_features, str(tmp_path), dict(kind=kind, strategy='ddp', iters=6), True)
    found, _ = gloo_pool.run(train_features, str(tmp_path), dict(kind=kind, strategy='fsdp', iters=6), True)
    assert found['state'].keys() == expected['state'].keys()
    for name, value in expected['state'].items():
        torch.testing.assert_close(
            found['state'][name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f'{name}: {text}'
        )
