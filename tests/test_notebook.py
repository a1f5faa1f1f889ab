"""``docs/first_steps.ipynb`` runs from its first cell to its last, without Jupyter."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.snippets import ROOT, environment
from tests.warm import programs

NOTEBOOK = ROOT / 'docs/first_steps.ipynb'
CONTENT: dict[str, Any] = json.loads(NOTEBOOK.read_text())
CODE = [''.join(cell['source']) for cell in CONTENT['cells'] if cell['cell_type'] == 'code']

RUN = """
import json, sys
cells, namespace = json.load(sys.stdin), {'__name__': '__main__'}
for number, cell in enumerate(cells):
    exec(compile(cell, f'cell {number}', 'exec'), namespace)
tokenizer, generator, numpy = (namespace[name] for name in ('tokenizer', 'generator', 'np'))
digits, again, drawn = (namespace[name].astype(float) for name in ('digits', 'again', 'drawn'))
print(json.dumps({
    'tokens': list(namespace['tokens'].shape),
    'drawn': list(drawn.shape),
    'same': bool((generator.sample(classes=range(10), guidance=2.0, seed=1, to='numpy') == drawn).all()),
    'error': float(((again - digits) ** 2).mean()),
    'spread': float(((digits.mean(0) - digits) ** 2).mean()),
    'psnr': namespace['trained'].metrics['psnr'],
}))
"""


def test_it_has_no_outputs_and_is_a_notebook() -> None:
    assert (CONTENT['nbformat'], CONTENT['nbformat_minor']) == (4, 5)
    assert CONTENT['metadata'] == {
        'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
        'language_info': {'name': 'python'},
    }
    ids = [cell['id'] for cell in CONTENT['cells']]
    assert len(set(ids)) == len(ids)
    for cell in CONTENT['cells']:
        if cell['cell_type'] == 'code':
            assert cell['outputs'] == [] and cell['execution_count'] is None, 'outputs are not stored: they go out of date'
            assert cell.keys() == {'cell_type', 'id', 'metadata', 'execution_count', 'outputs', 'source'}
        else:
            assert cell.keys() == {'cell_type', 'id', 'metadata', 'source'}


def test_its_links_lead_somewhere() -> None:
    text = ''.join(''.join(cell['source']) for cell in CONTENT['cells'] if cell['cell_type'] == 'markdown')
    found = re.findall(r'\]\(([^)#]+)\)', text)
    assert found and all((NOTEBOOK.parent / link).is_file() for link in found), found


@pytest.mark.slow
def test_it_runs_as_it_stands(tmp_path: Path) -> None:
    done = subprocess.run(
        [programs() / 'python', '-c', RUN],
        input=json.dumps(CODE),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found['tokens'] == [10, 4, 4] and found['drawn'] == [10, 32, 32, 3] and found['same']
    assert found['psnr'] > 18
    assert found['error'] < 0.5 * found['spread'], 'reconstructions are nearer to their digits than the mean digit is'
