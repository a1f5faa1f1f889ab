"""A user's own quantizer, loss, dataset, transform and callback through the whole chain, from another folder than theirs.

The parts are those of CONTRIBUTING.md, in a package of the user. The runs are in a folder that does not hold the package.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.snippets import environment, read_snippets

pytestmark = pytest.mark.slow

NAMES = ('binary', 'charbonnier', 'squares', 'corners', 'largest')
MODULES = [f'my_parts.{name}' for name in NAMES]
SMALL = "width=8, iters=4, lr=1e-3, schedule=dict(type='ConstantSchedule'), save_every=2, evaluate=4"
TOKENIZER = f'''
"""Everything is mine."""

from vq.recipes import digits_tokenizer

custom_imports = {MODULES}
_base_ = [digits_tokenizer(_kwargs_, quantizer=dict(type='BinaryQuantizer', embedding_dim=6), {SMALL})]
_data = dict(_delete_=True, type='SquaresDataset', transform=dict(type='corner', image_size=32))
trainer = dict(
    dataset=dict(_data, count=48),
    model=dict(losses=dict(l2=None, smooth=dict(type='CharbonnierLoss', epsilon=1e-2))),
    callbacks=dict(largest=dict(type='LargestNormCallback')),
)
validator = dict(dataset=dict(_data, split='validation', count=24))
'''
GENERATOR = '''
"""A generator of my tokens of my images."""

from vq.recipes import digits_generator

custom_imports = MODULES
_small = dict(dim=16, depth=1, heads=2, num_classes=0, guidance=dict(type='ConstantGuidance', scale=1.0))
_short = dict(iters=4, schedule=dict(type='ConstantSchedule'), save_every=2, evaluate=4, pictures_every=4)
_base_ = [digits_generator(_kwargs_, **_small, **_short)]
trainer = dict(dataset=dict(source=dict(_delete_=True, type='SquaresDataset', count=48)))
validator = dict(dataset=dict(_delete_=True, type='SquaresDataset', split='validation', count=24))
'''
PYTHON = """
import vq
from vq.core.errors import UserError
try:
    vq.load('gen')
except UserError as error:
    assert 'my_parts.binary' in error.message and 'trust=True' in error.hint
else:
    raise SystemExit('it was loaded without trust')
tokenizer, generator = vq.load('tok', trust=True), vq.load('gen', trust=True)
assert tokenizer.codebook_size == 64
pictures = generator.sample(count=3, to='pil')
assert [picture.size for picture in pictures] == [(32, 32)] * 3
assert tokenizer.tokenize(pictures).shape == (3, *tokenizer.token_shape)
trained = vq.run_training('PROJECT/tokenizer.py', name='again')
assert trained.finished and 'smooth' in trained.losses
assert trained.load().codebook_size == 64
"""


class User:
    """Commands in ``folder``; the user's modules are in ``project``, on PYTHONPATH where ``known``."""

    def __init__(self, room: Path, programs: Path) -> None:
        self.project, self.folder, self.programs = room / 'project', room / 'elsewhere', programs
        (self.project / 'my_parts').mkdir(parents=True)
        self.folder.mkdir()
        texts = {snippet.file: snippet.text for snippet in read_snippets('CONTRIBUTING.md') if snippet.file}
        for name in NAMES:
            (self.project / f'my_parts/{name}.py').write_text(texts[f'{name}.py'])
        (self.project / 'tokenizer.py').write_text(TOKENIZER)
        (self.project / 'generator.py').write_text(GENERATOR.replace('MODULES', str(MODULES)))
        (self.project / 'partly.py').write_text(GENERATOR.replace('MODULES', str(MODULES[1:])))

    def run(self, command: str, code: int = 0, known: bool = True) -> str:
        variables = environment(self.programs)
        if known:
            variables['PYTHONPATH'] = os.pathsep.join([str(self.project), variables['PYTHONPATH']])
        text = command.replace('PROJECT', str(self.project))
        done = subprocess.run(
            ['bash', '-c', text], cwd=self.folder, env=variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, f'{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
        return done.stdout + done.stderr

    def refused(self, command: str, *modules: str) -> None:
        """The error lists these modules, and its last line is the whole command with --trust."""
        *_, message, hint = self.run(command, code=2).strip().splitlines()
        assert message.endswith(f'and so executed: {", ".join(sorted(modules))}'), message
        assert hint.endswith(f'{command.replace("PROJECT", str(self.project))} --trust'), hint


@pytest.fixture
def user(tmp_path: Path, warm_programs: Path) -> User:
    return User(tmp_path, warm_programs)


def test_the_whole_chain(user: User) -> None:
    said = user.run('python -m vq.train tok PROJECT/tokenizer.py', code=2, known=False)
    assert "'my_parts.binary' cannot be imported" in said and 'PYTHONPATH=FOLDER' in said
    assert not (user.folder / 'work_dirs').exists()

    user.run('python -m vq.train tok PROJECT/tokenizer.py')
    run = user.folder / 'work_dirs/tok'
    assert '"largest"' in (run / 'log.jsonl').read_text() and 'smooth' in (run / 'log.jsonl').read_text()
    # what lies in the run's folder is never executed, also not with trust
    for place in (run, run / 'checkpoints', run / 'checkpoints/iter_4'):
        (place / 'my_parts').mkdir()
        for name in ('__init__', *NAMES):
            (place / f'my_parts/{name}.py').write_text("open('executed', 'w').close()\n")

    user.refused('python -m vq.val tok', *MODULES)
    user.run('python -m vq.val tok --trust')
    user.run('python -m vq.val tok PROJECT/tokenizer.py --again')
    user.run('python -m vq.tasks.image_tokenization.tokenize tok PROJECT/tokenizer.py --load-model-from tok')

    on_it = '--config-options tokenizer_run::tok'
    user.refused(f'python -m vq.train gen digits/ar.py {on_it}', *MODULES)
    user.refused(f'python -m vq.train gen PROJECT/partly.py {on_it}', MODULES[0])
    assert not (user.folder / 'work_dirs/gen').exists()
    user.run(f'python -m vq.train gen PROJECT/generator.py {on_it}')
    user.refused('python -m vq.sample gen --num-samples 5 --load-model-from gen', *MODULES)
    user.run(f'python -m vq.sample gen PROJECT/generator.py {on_it} --num-samples 5 --load-model-from gen')
    user.run('python -m vq.val gen --trust')
    assert len(list((user.folder / 'work_dirs/gen_sample/samples').glob('*.png'))) == 5

    (user.folder / 'use.py').write_text(PYTHON.replace('PROJECT', str(user.project)))
    user.run('python -m use')
    assert not list(user.folder.rglob('executed'))
