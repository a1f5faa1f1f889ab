"""Recipes for a folder of pictures: what a generator takes from its tokenizer's run, and mistakes that are told at once."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vq
from tests import messy
from tests.runners.support import commands_here, said_by
from tests.sources import ROOT
from vq.assembly.compose import checked, compose
from vq.cli import sample, train
from vq.core.errors import ConfigError, UserError
from vq.io import runs

SMALL = ('batch_size=8', 'num_workers=0', 'iters=2')

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of four classes, and without classes, and tokenizers and generators of both."""
    folder = tmp_path_factory.mktemp('home')
    messy.make(folder / 'photos', 40, 32)
    messy.make(folder / 'flat', 40, 32, flat=True, broken=False)
    with commands_here(dry=False), contextlib.chdir(folder):
        for name, *images in (('tok', 'data_root=photos'), ('plain', 'data_root=flat', 'classes=False')):
            of_images = [*images, 'image_size=32', 'held_out=0.2']
            assert train.main([name, 'photos/tokenizer.py', *of_images, *SMALL]) == 0
        for name, config, tokenizer in (('gen', 'ar', 'tok'), ('masked', 'maskgit', 'tok'), ('free', 'ar', 'plain')):
            assert train.main([name, f'photos/{config}.py', f'tokenizer={tokenizer}', *SMALL]) == 0
    return folder


@pytest.fixture(autouse=True)
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(home)
    with commands_here(dry=False):
        yield


def test_a_tokenizer_has_the_settings_of_its_size() -> None:
    small, medium = (compose('photos/tokenizer.py', {'size': size}, {}, tiny=False).trainer for size in 'SM')
    assert (small.iters, small.dataloader.batch_size, small.model.tokenizer.quantizer.codebook_size) == (1500, 16, 256)
    assert (medium.iters, medium.dataloader.batch_size, medium.model.tokenizer.quantizer.codebook_size) == (10_000, 32, 512)
    own = compose(
        'photos/tokenizer.py', {'size': 'M', 'iters': 90, 'batch_size': 4, 'codebook_size': 64}, {}, tiny=False
    ).trainer
    assert (own.iters, own.dataloader.batch_size, own.model.tokenizer.quantizer.codebook_size) == (90, 4, 64)
    assert own.callbacks.evaluate.interval == own.callbacks.checkpoint.interval == 30
    with pytest.raises(ConfigError, match=r'size is .XL.'):
        compose('photos/tokenizer.py', {'size': 'XL'}, {}, tiny=False)


def test_an_image_size_that_tokens_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match='image_size is 60') as error:
        compose('photos/tokenizer.py', {'image_size': 60}, {}, tiny=False)
    assert '56 or 64' in error.value.hint


def test_a_generator_takes_images_size_and_classes_from_the_run() -> None:
    tokenizer, config = runs.find('tok'), compose('photos/ar.py', {'tokenizer': 'tok'}, {}, tiny=False)
    checked(config, 'trainer')
    for which in ('trainer', 'validator'):
        assert config[which].dataset == tokenizer.config[which]['dataset']
        assert config[which].dataloader.bad_images == 'skip'
    model = config.trainer.model
    assert (model.generator.classes, model.tokenizer.image_size, model.guidance.scale) == (4, 32, 2.0)
    assert Path(model.tokenizer.weights) == tokenizer.weights
    free = compose('photos/ar.py', {'tokenizer': 'plain'}, {}, tiny=False).trainer.model
    assert (free.generator.classes, free.guidance.scale) == (0, 1.0)
    none = compose('photos/ar.py', {'tokenizer': 'tok', 'num_classes': 0}, {}, tiny=False).trainer.model
    assert (none.generator.classes, none.guidance.scale) == (0, 1.0)


def test_tokens_can_be_written_once() -> None:
    """Then the images are centre crops, and variants are the only augmentation."""
    dataset = compose('photos/ar.py', {'tokenizer': 'tok', 'on_the_fly': False}, {}, tiny=False).trainer.dataset
    assert (dataset.type, dataset.source.root, dataset.source.split) == ('TokenDataset', 'photos', 'train')
    assert dataset.source.transform.type.endswith('.none')


def test_a_folder_that_has_moved_is_named_again() -> None:
    config = compose('photos/maskgit.py', {'tokenizer': 'tok', 'data_root': 'elsewhere'}, {}, tiny=False)
    assert config.trainer.dataset.root == config.validator.dataset.root == 'elsewhere'


def test_a_run_of_photos_has_class_names(home: Path) -> None:
    names = ('boat', 'cat', 'rocket', 'tree')
    assert all(runs.find(name).spec.categories == names for name in ('tok', 'gen', 'masked'))
    assert runs.find('plain').spec.categories == runs.find('free').spec.categories == ()
    assert 'categories' not in json.loads((home / 'work_dirs/free/checkpoints/iter_2/spec.json').read_text())


@pytest.mark.parametrize('name', ['gen', 'masked'])
def test_classes_are_drawn_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By name or by number the same pictures come out; ``vq.load`` takes names too."""
    drawn = []
    for words in (['rocket', '3', 'BOAT'], ['2', 'tree', '0']):
        said_by(capsys, sample.main, name, '--classes', *words, '--num-samples', '6', '--overwrite')
        folder = Path(f'work_dirs/{name}_sample/samples')
        drawn.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert len(drawn[0]) == 6 and drawn[0] == drawn[1]
    generator = vq.load(name)
    assert generator.class_names == ('boat', 'cat', 'rocket', 'tree')
    by_name, by_number = generator.sample(classes=['rocket', 3], count=4), generator.sample(classes=[2, 3], count=4)
    assert np.array_equal(by_name.numpy(), by_number.numpy()) and generator.sample(classes='cat').shape == (1, 3, 32, 32)
    with pytest.raises(UserError, match="no class 'rokcet'; did you mean 'rocket'"):
        generator.sample(classes=['rokcet'])


@pytest.mark.parametrize(
    ('words', 'message', 'hint'),
    [
        (['gen', '--classes', 'rokcet'], "has no class 'rokcet'; did you mean 'rocket'?", 'boat, cat, rocket, tree'),
        (['gen', '--classes', '4'], 'has no class 4: it has 4', 'numbers from 0 to 3'),
        (['free', '--classes', 'rocket'], 'the generator free has no classes', 'Leave classes out'),
        (['free', '--guidance', '3'], 'guidance is 3, and the generator has no classes', 'Leave it out'),
        (
            ['gen', '--classes', 'cat', '--sweep', 'guidance=1,2'],
            'a sweep draws what the validation split shows',
            '--classes',
        ),
    ],
)
def test_a_wrong_wish_is_refused_before_anything_is_drawn(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path('work_dirs').iterdir())
    said = said_by(capsys, sample.main, *words, code=2).splitlines()
    assert message in said[-2] and hint in said[-1]
    assert sorted(Path('work_dirs').iterdir()) == before


@pytest.mark.parametrize(
    ('options', 'message', 'hint'),
    [
        (['tokenizer=gen'], "tokenizer: 'gen' is a generator, trained on the tokens of", 'tokenizer=tok'),
        (['tokenizer=toc'], "tokenizer: there is no run, checkpoint or file 'toc'; did you mean 'tok'?", 'Runs in work_dirs'),
        (
            ['tokenizer=tok', 'image_size=64'],
            'image_size is 64, and the tokenizer was trained on images of 32',
            'Leave image_size',
        ),
        (['tokenizer=plain', 'guidance=3'], 'guidance is 3, and the generator has no classes', 'one folder for each class'),
        (['tokenizer=tok', 'dataset=folder'], "has no option 'dataset'", 'It reads'),
        (['tokenizer=tok', 'num_classes=2'], 'set has 4 classes and the model 2', 'Set classes'),
        ([], 'the config does not say which tokenizer to use', 'tokenizer=NAME'),
    ],
)
def test_a_mistake_is_told_before_the_first_step(
    options: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_by(capsys, train.main, 'wrong', 'photos/ar.py', *options, code=2).splitlines()
    assert message in said[-2] and hint in said[-1]
    assert not Path('work_dirs/wrong/checkpoints').exists()


def test_recipes_stay_small() -> None:
    """Code lines of recipes and configs together, without comments and docstrings. Pictures of one's own are a family of their
    own: its recipe has options for three sizes, and checks what a generator takes from a run, which no other recipe does. The
    table of teachers is a list of sizes, counted by itself. Tokenizers in a teacher's feature space have their bound in
    ``test_understanding.py``; what a teacher does for VQGAN is counted by itself too, and so are masked generators.
    Data and the datasets, of which each has a row or a few lines, are counted by themselves; so are continuous tokenizers and
    diffusion, with the lines that name them in other files. Energies, generators of continuous tokens, UNets, layout to image
    and segmenters have bounds of their own."""
    paths = [path for folder in ('vq/recipes', 'configs') for path in (ROOT / folder).rglob('*.py')]
    paths = [path for path in paths if not understands(path)]
    continuous = {path for path in paths if path.stem == 'mar' or path.parent.name == 'mar'}
    assert sum(map(code_lines, continuous)) <= 155
    paths = [path for path in paths if path not in continuous]
    own = ('layout.py', 'f4_8192_imagenet_ddp.py')  # and the autoencoder of faces
    layouts = {path for path in paths if path.name in own or path.match('configs/layout/*_ddp.py')}
    assert sum(map(code_lines, layouts)) <= 130
    segmenters = {path for path in paths if path.name in ('segmentation.py', 'digits_segmenter.py')}
    assert sum(map(code_lines, segmenters)) <= 45
    paths = [path for path in paths if path not in layouts | segmenters]
    unets = {path for path in paths if path.stem in ('unet', 'digits_canvas') or path.parent.name in ('ddpm', 'layout')}
    named = sum(path.read_text().count('vq.recipes.unet import') for path in paths)
    others = re.compile(r'recipes\.(?:layout|segmentation) import|GateAlarmCallback')
    named += sum(len(others.findall(path.read_text())) for path in paths)
    assert sum(map(code_lines, unets)) + named <= 100
    paths = [path for path in paths if path not in unets]
    photos = sum(code_lines(path) for path in paths if 'photos' in path.relative_to(ROOT).as_posix())
    assert photos <= 175
    teachers = sum(code_lines(ROOT / path) for path in ('vq/recipes/teachers.py', 'configs/models/teacher.py'))
    assert teachers <= 120
    aligned = sum(code_lines(path) for path in paths if 'align' in path.stem or 'dino_disc' in path.stem)
    assert aligned <= 75
    masked = sum(code_lines(path) for path in paths if path.stem == 'masked' or path.parent.name == 'mage')
    assert masked <= 55
    of_data = ('data.py', 'combined.py', 'coco.py', 'latents.py')
    datasets = sum(code_lines(path) for path in paths if path.name in of_data or path.parent.name == 'datasets')
    assert datasets <= 293
    latents = sum(code_lines(path) for path in paths if of_latents(path))
    assert latents <= 545
    energies = sum(code_lines(path) for path in paths if path.stem == 'energy' or path.parent.name == 'energy')
    energies += sum(path.read_text().count('vq.recipes.energy import') for path in paths)
    assert energies <= 130
    counted = ('photos.py', 'energy.py')
    added = sum(len(ADDED.findall(path.read_text())) for path in paths if not of_latents(path) and path.name not in counted)
    assert added <= 10
    added += named
    assert sum(map(code_lines, paths)) - photos - teachers - aligned - masked - datasets - latents - energies - added <= 1_252


OF_LATENTS = [
    'denoisers',
    'diffusion',
    'kl',
    'representation',
    'second_stage',
    'perturbed',
    'fsq_noise',
    'kl_noisy',
    'kl_ordered',
    'rae',
    'vq_swaps',
]
ADDED = re.compile(
    r'^.*(?:import disturbed|\*\*disturbed|features_file|recipes\.(?:diffusion|kl|rep\w+|second_stage) import)', re.M
)


def of_latents(path: Path) -> bool:
    """Whether a recipe or config is of continuous tokenizers, their perturbations, and diffusion."""
    where = path.relative_to(ROOT).as_posix()
    return path.parent.name in ('diffusion', 'two_stage') or (path.stem in OF_LATENTS and where != 'configs/digits/kl.py')


def understands(path: Path) -> bool:
    """Whether a recipe or config is of the family of tokenizers in a teacher's feature space."""
    return any(word in path.relative_to(ROOT).as_posix() for word in ('vqkd', 'cluster'))


def code_lines(path: Path) -> int:
    """Lines with code of a file."""
    text = path.read_text()
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in layout]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)
