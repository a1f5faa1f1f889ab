"""The commands of ``vq``: one table, which help, completion, docs and tests read. Imports no body."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    body: str  # module with make_parser() and main()
    about: str  # one line of help
    ranks: bool = False  # whether it runs on all devices of the launch
    door: str = ''  # module of the form ``python -m DOOR``; a command on ranks needs one


COMMANDS = {
    'train': Command('vq.cli.train', 'train the model that a config describes; resume a run', True, 'vq.train'),
    'val': Command('vq.cli.val', 'validate the checkpoints of a run, each once', True, 'vq.val'),
    'test': Command('vq.cli.test', 'measure one set of weights; write tokens and pictures', True, 'vq.test'),
    'sample': Command('vq.cli.sample', 'draw images from a trained generator', True, 'vq.sample'),
    'reconstruct': Command('vq.cli.inference', 'reconstruct image files with a tokenizer', False, 'vq.inference'),
    'tokenize': Command(
        'vq.cli.tokenize', 'write the tokens of a split as shards', True, 'vq.tasks.image_tokenization.tokenize'
    ),
    'fid': Command('vq.cli.fid', 'statistics of a dataset, which FID compares with', True, 'vq.fid'),
    'data': Command('vq.cli.data', 'look at images, check them, pack them into a few large files', False, 'vq.data'),
    'config': Command('vq.cli.config', 'list, print, check and copy configs; their options', False, 'vq.config'),
    'runs': Command('vq.cli.runs', 'list the runs: state, steps, figures, size; prune them'),
    'compare': Command('vq.cli.compare', 'runs or results side by side', False, 'vq.tools.compare'),
    'report': Command('vq.cli.report', 'one page about a run: curves, pictures, figures, cost'),
    'web': Command('vq.cli.web', 'a page in the browser: draw layouts, reconstruct, generate, compare', False, 'vq.web'),
    'fetch': Command('vq.cli.prepare', 'fetch and check published weights', False, 'vq.tools.prepare_checkpoints'),
    'convert': Command('vq.cli.convert', 'convert what others have published', False, 'vq.tools.convert_checkpoints'),
    'merge': Command('vq.cli.merge', 'merge the weights of models of one architecture'),
    'export': Command('vq.cli.export', 'write a generator in the Hugging Face layout', False, 'vq.tools.export_hugging_face'),
    'doctor': Command('vq.cli.doctor', 'check this machine: devices, memory, disk, packages, one training step'),
    'completion': Command('vq.cli.completion', 'print a script that completes vq in bash, zsh or fish'),
}

# words of other toolkits and older modules -> command
OTHER_WORDS = {
    'inference': 'reconstruct',
    'infer': 'reconstruct',
    'eval': 'val',
    'evaluate': 'val',
    'validate': 'val',
    'generate': 'sample',
    'encode': 'tokenize',
    'prepare_checkpoints': 'fetch',
    'download': 'fetch',
    'configs': 'config',
    'options': 'config',
    'list': 'runs',
    'ls': 'runs',
    'dataset': 'data',
}


def prog_of(door: str) -> str:
    """The program name in usage lines: ``vq train`` for ``vq.train``; a module without a command keeps its name."""
    named = {command.door: name for name, command in COMMANDS.items() if command.door}
    name = named.get(door) or door.removeprefix('vq.')
    return f'vq {name}' if name in COMMANDS else door
