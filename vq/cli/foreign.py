"""Flags that a command does not have: the words of mmengine and of other toolkits, and misspelt ones, with the right word."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence

from vq.core.errors import UserError

_OPTIONS = 'Write the options of a config as bare words after CONFIG: image_size=64; values of it by path: .trainer.iters=100.'
_RESUME = 'Write --auto-resume, which goes on from the newest checkpoint, or --load-from iter_N for an earlier one.'
_LAUNCHER = (
    'Leave it out: vq starts one process per GPU. Write strategy=ddp after CONFIG to train on all of them, '
    'and vq --nproc-per-node N COMMAND for another number of processes.'
)
_WEIGHTS = 'Write --load-model-from RUN, with the name of a run, its folder, a checkpoint or a file.'
_RUNS = 'Write --work-dir DIR, the folder of all runs; NAME is the folder of this run in it.'
_OTHER = (
    'An option of the config is a bare word: {name}=VALUE. vq config CONFIG --options lists them, {prog} --help the flags.'
)
HINTS = {
    ('--cfg-options', '--cfg', '--opts', '--options', '--set'): _OPTIONS,
    ('--resume', '--resume-from', '--resume-from-checkpoint', '--continue', '--auto-resume-from'): _RESUME,
    ('--launcher', '--gpus', '--gpu-ids', '--gpu-id', '--num-gpus', '--local-rank', '--devices', '--ddp'): _LAUNCHER,
    ('--checkpoint', '--ckpt', '--ckpt-path', '--model-path', '--pretrained', '--weights-from'): _WEIGHTS,
    ('--work-dirs', '--output-dir', '--out-dir', '--log-dir', '--logdir', '--save-dir', '--exp-dir'): _RUNS,
    ('--amp', '--fp16', '--bf16', '--mixed-precision'): 'Write --autocast, which runs forward passes in bf16.',
    ('--name', '--exp-name', '--experiment'): 'NAME is the first word: {prog} NAME CONFIG.',
    ('--config', '--config-file', '--cfg-file'): 'CONFIG is a word without a flag: {prog} NAME CONFIG.',
}
_BY_FLAG = {flag: hint for flags, hint in HINTS.items() for flag in flags}


def refuse(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Raise for the first flag among ``words`` that the parser does not have."""
    flags = parser._option_string_actions
    for word in words:
        if word == '--':
            return
        flag = word.partition('=')[0]
        if not re.fullmatch(r'--[A-Za-z][\w-]*', flag) or any(known.startswith(flag) for known in flags):
            continue
        hint = _BY_FLAG.get(flag.replace('_', '-'))
        close = [] if hint else difflib.get_close_matches(flag, [*flags], n=1, cutoff=0.75)
        if hint is None and '--config-options' in flags and not close:
            hint = _OTHER.replace('{name}', flag[2:].replace('-', '_'))
        hint = hint or f'{parser.prog} --help lists the flags.'
        meant = f"; did you mean '{close[0]}'?" if close else ''
        raise UserError(f'{parser.prog} has no {flag}{meant}', hint.replace('{prog}', parser.prog))
