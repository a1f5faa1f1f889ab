"""docs/layout.md: it has every key, flag and hook of LayoutDiffuse, and what stands beside them can be used."""

from __future__ import annotations

import re

from tests.flag_tables import flags, page_of, written
from tests.published import SHARED, find
from tests.test_two_stage_page import CODE, Pairs, Row, together, uses
from vq.assembly.compose import checked, compose

CONFIG = 'layout/coco_ldm_ddp.py'
GROUPS = {  # keys of the JSON files that its notes list, by their group; '': at the top
    '': 'expt_name expt_dir trainer_args callbacks denoising_model vqvae_model text_model',
    'diffusion.': 'model model_args',
    'data.': 'dataset root image_size dataset_args train_args val_args batch_size val_batch_size',
    'save_model_config.': 'every_n_epochs save_top_k',
    'sampling_args.': 'sampling_w_noise image_size in_channel num_samples callbacks',
}
HOOKS = (
    *(
        'process_batch',
        'training_step',
        'validation_step',
        'test_step',
        'DDPMTraining',
        'DDIMTraining',
        'DDPMBase',
        'DDIMBase',
    ),
    *('EmbedBlock', 'ConditionBlock', 'res_block_type', 'attn_block_type', 'in_channel', 'out_channel', 'schedule_resampler'),
    *('raw_image', 'model_input', 'model_output', 'y_0_hat', 'y_0_image', 'restore', 'sampling', 'wandb login', 'main.py'),
    *('g_mask.py', 'requirements.txt', 'merge', 'num_prompt', 'image_in_kv', 'freeze_pretrained_weights'),
)


class KeyRow(Row):
    """A row whose options are those of layout to image."""

    @property
    def config(self) -> str:
        return CONFIG


def test_the_table_is_that_of_its_source() -> None:
    """If this fails: python -m tests.flag_tables"""
    assert page_of('layout').read_text(encoding='utf-8') == written('layout')


def test_every_key_flag_script_and_hook_has_a_row() -> None:
    document = find(SHARED / 'reference/systems/001.txt', 'the folder shared').read_text()
    notes = find(SHARED / 'reference/systems-000-001-002-004.md', 'the folder shared').read_text()
    features = notes.partition('### B1.')[2].partition('### B2.')[0]
    keys = {f'{group}{key}' for group, names in GROUPS.items() for key in names.split()}
    for key in keys:  # the list here is that of the notes
        assert key.rpartition('.')[2] in features, key
    scripts = set(re.findall(r'scripts/\w+\.sh', document))
    notes_flags = set(re.findall(r'--[a-z_]+', features)) | {'-c', '-r', '-n', '-e', '-s', '-d'}
    assert len(keys) == 24 and len(scripts) == 4 and len(notes_flags) > 8
    table = [' '.join(flag) for flag in flags('layout')]
    theirs = [part for flag in flags('layout') for part in flag.theirs.replace(',', ' ').split()]
    assert not sorted((keys | scripts) - set(theirs))
    assert not sorted(flag for flag in notes_flags if not any(flag in part for part in theirs))
    assert not [hook for hook in HOOKS if not any(hook in row for row in table)]
    first = [flag.theirs for flag in flags('layout')]
    assert len(first) == len(set(first)), 'a key has one row'


def test_what_stands_in_every_row_can_be_used() -> None:
    """Parses and resolves; the options of all rows are composed together, as far as they do not exclude each other."""
    wanted: dict[str, list[Pairs]] = {CONFIG: []}
    for flag in flags('layout'):
        row = KeyRow('Keys', flag.theirs, flag.ours)
        used = [kind for code in CODE.findall(row.ours) for kind in uses(row, code, wanted)]
        assert used, f'nothing to check in {flag.theirs}'
    assert len(wanted[CONFIG]) > 25
    for options, overrides in together(wanted[CONFIG]):
        composed = compose(CONFIG, options, overrides, tiny=False)
        checked(composed, 'trainer')
        checked(composed, 'validator')
