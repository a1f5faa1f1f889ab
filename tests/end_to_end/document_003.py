"""The command lines that the reference toolkit's own document prints, how ours run, and why a line differs.

``python -m tests.end_to_end.document_003`` writes the tables of docs/reference_commands.md from these rows.

A row is one command line, verbatim, with its line breaks; only the address of a package index is left out. What may
differ in the line that is run is listed here as a reason; there is no other difference. Lines stand in the order of the
document, and run in that order.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / 'docs' / 'reference_commands.md'
BEGIN, END = (
    '<!-- written by tests/end_to_end/document_003.py -->',
    '<!-- end of what tests/end_to_end/document_003.py writes -->',
)
MIRROR = 'http://127.0.0.1'  # tests add the port of their server


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why a line differs from the printed one, and how: ``change`` gives the lines to run in its place."""

    text: str
    change: Callable[[str], tuple[str, ...]] = lambda line: (line,)


@dataclasses.dataclass(frozen=True)
class Row:
    """A printed command line. ``settings``: the values of its ``${...}``, one command for each."""

    section: str
    printed: str
    reasons: tuple[Reason, ...] = ()
    settings: tuple[Mapping[str, str], ...] = ({},)
    inputs: tuple[str, ...] = ()  # files that no command of the document makes, by the name of what makes them in the test

    @property
    def lines(self) -> tuple[str, ...]:
        """What is run in the place of the printed line; nothing if it is only listed."""
        found = (self.printed,)
        for reason in self.reasons:
            found = tuple(line for before in found for line in reason.change(before))
        return found


OPTION = re.compile(r'( \\\n *| )\[(--.*?)\](?=\s|$)')  # brackets inside of a word, as in ``callbacks[-1]``, are of the word


INSTALLS = Reason('installs packages, so it is listed and not run', lambda line: ())
SERVED = Reason(
    'small files from a server on the same machine in place of the published ones', lambda line: (f'{line} --mirror {MIRROR}',)
)
OPTIONAL = Reason(
    'run without and with what stands in brackets', lambda line: (OPTION.sub('', line), OPTION.sub(r'\1\2', line))
)
FILLED = Reason('the shell fills in `${...}` from variables that the test sets')
RUN = Reason('`run --`, a program of the authors, is dropped', lambda line: (line.removeprefix('run -- '),))
TWO_COMMANDS = Reason(
    'two commands in one line: the second is dropped',
    lambda line: (line.replace('vq.val auto_torchrun -m vq.train', 'vq.val'),),
)
MADE = Reason('reads files that no line of the document makes: the test makes them')


def rows(
    section: str,
    text: str,
    *reasons: Reason,
    settings: tuple[Mapping[str, str], ...] = ({},),
    inputs: tuple[str, ...] = (),
) -> list[Row]:
    return [Row(section, line, reasons, settings, inputs) for line in commands(text)]


def commands(text: str) -> list[str]:
    """The command lines of a shell text; a line that ends with a backslash goes on in the next."""
    found: list[str] = []
    goes_on = False
    for line in text.strip('\n').split('\n'):
        if goes_on:
            found[-1] += f'\n{line}'
        elif line.strip() and not line.startswith('#'):
            found.append(line.rstrip())
        goes_on = line.endswith('\\')
    return found


def blocks(document: str) -> str:
    """The content of the fenced blocks of a document, without addresses of package indices, which no file here has."""
    inside, found = False, []
    for line in document.split('\n'):
        if line.startswith('```'):
            inside = not inside
        elif inside:
            found.append(line)
    return re.sub(r' --index.url \S+', '', '\n'.join(found))


TOKENIZED = (
    {
        'name': 'vqkd_clip_tokenize',
        'config': 'configs/vqkd/clip_8192_imagenet_ddp.py',
        'load_model_from': 'work_dirs/dry_run/vqkd/clip_8192_imagenet_ddp',
    },
    {
        'name': 'vqgan_tokenize',
        'config': 'configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py',
        'load_model_from': 'work_dirs/dry_run/vqgan/8192_dd2_aglwg075_imagenet_ddp',
    },
)
IMAGES = ({'image_root': 'work_dirs/images/pictures'},)

ROWS: list[Row] = [
    *rows(
        'Preparation',
        r"""
pip install torch==2.4.0 torchvision==0.19.0 torchaudio==2.4.0
pip install "numpy<2.0" scipy scikit-image mim transformers==4.38.2 git+https://github.com/lvis-dataset/lvis-api.git@lvis_challenge_2021
mim install mmcv==2.2.0 -f https://download.openmmlab.com/mmcv/dist/cu118/torch2.4/index.html
make install_todd
""",
        INSTALLS,
    ),
    *rows(
        'Preparation',
        r"""
python tools/prepare_checkpoints.py pytorch_fid
python tools/prepare_checkpoints.py lpips
python tools/prepare_checkpoints.py inception
python tools/prepare_checkpoints.py torchvision
python tools/prepare_checkpoints.py beitv2
""",
        SERVED,
    ),
    *rows(
        'Preparation',
        r"""
python tools/convert_checkpoints.py beitv2 pretrained/beitv2/vqkd_encoder_base_decoder_1x768x12_clip.pth --options with_decoder:False
python tools/convert_checkpoints.py beitv2 pretrained/beitv2/vqkd_encoder_base_decoder_1x768x12_clip.pth --options with_decoder:True --suffix .converted.with_decoder
""",  # noqa: E501
    ),
    *rows(
        'Preparation',
        r"""
mkdir -p pretrained/fid
auto_torchrun -m vq.fid imagenet
auto_torchrun -m vq.fid imagenet --train --override .dataloader.batch_size:1024
""",
    ),
    *rows(
        'VQGAN',
        r"""
auto_torchrun -m vq.train vqgan/8192_dd2_aglwg075_imagenet_ddp configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py
auto_torchrun -m vq.train vqgan/1024_imagenet_ddp configs/vqgan/1024_imagenet_ddp.py
auto_torchrun -m vq.train vqgan/8192_imagenet_ddp configs/vqgan/8192_imagenet_ddp.py
""",
    ),
    *rows(
        'VQGAN',
        r"""
auto_torchrun -m vq.train vqgan/8192_laion_aesthetics_ddp configs/vqgan/8192_laion_aesthetics_ddp.py
auto_torchrun -m vq.train vqgan/8192_sa_med2d_20m_ddp configs/vqgan/8192_sa_med2d_20m_ddp.py
auto_torchrun -m vq.train vqgan/8192_satin_ddp configs/vqgan/8192_satin_ddp.py
""",
    ),
    *rows(
        'VQGAN',
        r"""
auto_torchrun -m vq.train vqgan/8192_stylegan2_imagenet_ddp configs/vqgan/8192_stylegan2_imagenet_ddp.py
""",
    ),
    *rows(
        'VQGAN',
        r"""
auto_torchrun -m vq.val vqgan/8192_dd2_aglwg075_imagenet_ddp configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py [--load-from iter_{15..26}0000]
auto_torchrun -m vq.val vqgan/1024_imagenet_ddp configs/vqgan/1024_imagenet_ddp.py [--load-from iter_{15..26}0000]
auto_torchrun -m vq.val vqgan/8192_imagenet_ddp configs/vqgan/8192_imagenet_ddp.py [--load-from iter_{15..26}0000]
""",  # noqa: E501
        OPTIONAL,
    ),
    *rows(
        'VQGAN',
        r"""
auto_torchrun -m vq.val vqgan/8192_laion_aesthetics_ddp configs/vqgan/8192_laion_aesthetics_ddp.py [--load-from iter_{15..26}0000]
auto_torchrun -m vq.val vqgan/8192_sa_med2d_20m_ddp configs/vqgan/8192_sa_med2d_20m_ddp.py [--load-from iter_{15..26}0000]
auto_torchrun -m vq.val vqgan/8192_satin_ddp configs/vqgan/8192_satin_ddp.py [--load-from iter_{15..26}0000]
""",  # noqa: E501
        OPTIONAL,
    ),
    *rows(
        'VQGAN',
        r"""
auto_torchrun -m vq.val vqgan/8192_stylegan2_imagenet_ddp configs/vqgan/8192_stylegan2_imagenet_ddp.py [--load-from iter_{15..26}0000]
""",  # noqa: E501
        OPTIONAL,
    ),
    *rows(
        'CVQ-VAE',
        r"""
auto_torchrun -m vq.train cvqvae/8192_dd2_aglwg075_imagenet_ddp configs/cvqvae/8192_dd2_aglwg075_imagenet_ddp.py
""",
    ),
    *rows(
        'CVQ-VAE',
        r"""
auto_torchrun -m vq.val cvqvae/8192_dd2_aglwg075_imagenet_ddp configs/cvqvae/8192_dd2_aglwg075_imagenet_ddp.py [--load-from iter_{15..26}0000]
""",  # noqa: E501
        OPTIONAL,
    ),
    *rows(
        'FSQ',
        r"""
auto_torchrun -m vq.train fsq/8000_imagenet_ddp configs/fsq/8000_imagenet_ddp.py
auto_torchrun -m vq.train fsq/64000_imagenet_ddp configs/fsq/64000_imagenet_ddp.py
""",
    ),
    *rows(
        'FSQ',
        r"""
auto_torchrun -m vq.val fsq/8000_imagenet_ddp configs/fsq/8000_imagenet_ddp.py [--load-from iter_{15..26}0000]
auto_torchrun -m vq.val fsq/64000_imagenet_ddp configs/fsq/64000_imagenet_ddp.py [--load-from iter_{15..26}0000]
""",
        OPTIONAL,
    ),
    *rows(
        'VQ-KD',
        r"""
auto_torchrun -m vq.train vqkd/clip_8192_imagenet_ddp configs/vqkd/clip_8192_imagenet_ddp.py
""",
    ),
    *rows(
        'VQ-KD',
        r"""
auto_torchrun -m vq.train \
    decoder/vqgan/vqkd_clip_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp \
    configs/decoder/vqgan.py \
    --config-options it_config::configs/vqkd/clip_8192_imagenet_ddp.py \
    --load-model-from work_dirs/dry_run/vqkd/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
    [--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]
auto_torchrun -m vq.train \
    decoder/llamagen/vqkd_clip_8192_imagenet_ddp/llamagen_8192_dd2_aglwg075_imagenet_ddp \
    configs/decoder/llamagen.py \
    --config-options it_config::configs/vqkd/clip_8192_imagenet_ddp.py \
    --load-model-from work_dirs/dry_run/vqkd/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
    [--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]
""",
        OPTIONAL,
    ),
    *rows(
        'VQ-KD',
        r"""
auto_torchrun -m vq.val vqkd/clip_8192_imagenet_ddp configs/vqkd/clip_8192_imagenet_ddp.py [--load-from iter_{15..26}0000]
""",
        OPTIONAL,
    ),
    *rows(
        'VQ-KD',
        r"""
auto_torchrun -m vq.val \
    decoder/vqgan/vqkd_clip_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp \
    configs/decoder/vqgan.py \
    --config-options it_config::configs/vqkd/clip_8192_imagenet_ddp.py \
    --load-model-from work_dirs/dry_run/vqkd/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
    [--load-from iter_{15..26}0000] \
    [--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]
auto_torchrun -m vq.val \
    decoder/llamagen/vqkd_clip_8192_imagenet_ddp/llamagen_8192_dd2_aglwg075_imagenet_ddp \
    configs/decoder/llamagen.py \
    --config-options it_config::configs/vqkd/clip_8192_imagenet_ddp.py \
    --load-model-from work_dirs/dry_run/vqkd/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
    [--load-from iter_{15..26}0000] \
    [--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]
""",
        OPTIONAL,
    ),
    *rows(
        'Ours - Cluster',
        r"""
auto_torchrun -m vq.train cluster/clip_8192_imagenet_ddp configs/cluster/clip_8192_imagenet_ddp.py
""",
    ),
    *rows(
        'Ours - Cluster',
        r"""
auto_torchrun -m vq.train \
    decoder/vqgan/cluster_clip_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp \
    configs/decoder/vqgan.py \
    --config-options it_config::configs/cluster/clip_8192_imagenet_ddp.py \
    --load-model-from work_dirs/dry_run/cluster/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
    [--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]
auto_torchrun -m vq.train \
    decoder/llamagen/cluster_clip_8192_imagenet_ddp/llamagen_8192_dd2_aglwg075_imagenet_ddp \
    configs/decoder/llamagen.py \
    --config-options it_config::configs/cluster/clip_8192_imagenet_ddp.py \
    --load-model-from work_dirs/dry_run/cluster/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
    [--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]
""",
        OPTIONAL,
    ),
    *rows(
        'Ours - Cluster',
        r"""
auto_torchrun -m vq.val auto_torchrun -m vq.train cluster/clip_8192_imagenet_ddp configs/cluster/clip_8192_imagenet_ddp.py [--load-from iter_{15..26}0000]
""",  # noqa: E501
        TWO_COMMANDS,
        OPTIONAL,
    ),
    *rows(
        'Ours - Cluster',
        r"""
auto_torchrun -m vq.val \
    decoder/vqgan/cluster_clip_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp \
    configs/decoder/vqgan.py \
    --config-options it_config::configs/cluster/clip_8192_imagenet_ddp.py \
    --load-model-from work_dirs/dry_run/cluster/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
    [--load-from iter_{15..26}0000] \
    [--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]
auto_torchrun -m vq.val \
    decoder/llamagen/cluster_clip_8192_imagenet_ddp/llamagen_8192_dd2_aglwg075_imagenet_ddp \
    configs/decoder/llamagen.py \
    --config-options it_config::configs/cluster/clip_8192_imagenet_ddp.py \
    --load-model-from work_dirs/dry_run/cluster/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
    [--load-from iter_{15..26}0000] \
    [--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]
""",
        OPTIONAL,
    ),
    *rows(
        'Proposal Network',
        r"""
auto_torchrun -m vq.train \
    ar/c2i_llama_medium_cfg_imagenet_ddp configs/ar/c2i_llama_medium_cfg_imagenet_ddp.py \
    --config-options \
        ir_config::work_dirs/dry_run/decoder/vqgan/vqkd_clip_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp/vqgan.py \
        it_state_dict::work_dirs/dry_run/vqkd/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth \
        ir_state_dict::work_dirs/dry_run/decoder/vqgan/vqkd_clip_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp/checkpoints/iter_2/model.pth
""",
    ),
    *rows(
        'Inference',
        r"""
torchrun --nproc_per_node=1 -m vq.inference configs/vqkd_clip_8192_dd3_imagenet_ddp.py data/imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG --load-model-from work_dirs/vqkd_8192_imagenet_ddp_autocast/checkpoints/iter_250000/model.pth
""",  # noqa: E501
        MADE,
        inputs=('jpeg', 'weights of vqkd'),
    ),
    *rows(
        'FID',
        r"""
run -- python tools/fidelity.py ${dataset:-imagenet} ${image_root} --work-dir ${image_root}/..
run -- python tools/fidelity.py ${dataset:-imagenet} ${image_root} --train --work-dir ${image_root}/..
""",
        RUN,
        FILLED,
        MADE,
        settings=IMAGES,
        inputs=('pictures',),
    ),
    *rows(
        'FID',
        r"""
bash tools/torchrun.sh tools/fid.py imagenet_val ${image_root} --work-dir ${image_root}/..
bash tools/torchrun.sh tools/fid.py imagenet_train ${image_root} --work-dir ${image_root}/..
""",
        FILLED,
        MADE,
        settings=IMAGES,
        inputs=('pictures',),
    ),
    *rows(
        'Tokenize',
        r"""
bash tools/torchrun.sh -m vq.test ${name} ${config} --tokenize --load-model-from ${load_model_from}
""",
        FILLED,
        settings=TOKENIZED,
    ),
    *rows(
        'Tokenize',
        r"""
bash tools/torchrun.sh -m vq.tasks.image_tokenization.tokenize ${name} ${config} --override .validator.type::VQITRunnerRegistry.Tokenizer --load-model-from ${load_model_from}
bash tools/torchrun.sh -m vq.tasks.image_tokenization.tokenize ${name} ${config} --override .validator.type::VQITRunnerRegistry.Tokenizer --load-model-from ${load_model_from} --train
""",  # noqa: E501
        FILLED,
        settings=TOKENIZED,
    ),
    *rows(
        'Tokenize',
        r"""
bash tools/torchrun.sh tools/llamagen.py llamagen/vqkd_8192_imagenet_ddp configs/vqkd/8192_imagenet_ddp.py --load-model-from work_dirs/models/vqkd_openclip_bigG_14_8192_imagenet_ddp_autocast/checkpoints/iter_250000/model.pth
""",  # noqa: E501
        MADE,
        inputs=('weights of openclip',),
    ),
    *rows(
        'Visualize',
        r"""
python tools/visualize_patches.py configs/vqkd/clip_8192_imagenet_ddp.py work_dirs/vqkd_clip_tokenize_tokenize/tokens
python tools/visualize_patches.py configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py work_dirs/vqgan_tokenize_tokenize/tokens
""",
        MADE,
        inputs=('tokens',),
    ),
    *rows(
        'Utils',
        r"""
for file in work_dirs/conditional_image_transformer_min_vqgan_fsq_8192_imagenet_ddp/checkpoints/iter_*; do num=$(echo $file | grep -o '[0-9]\+0000'); if (( $num % 40000 != 0 )); then rm -r $file; fi; done
for file in work_dirs/teacher_conditional_image_transformer_min_vqgan_dino_cvq_vae_8192_imagenet_ddp/checkpoints/iter_*; do num=$(echo $file | grep -o '[0-9]\+0000'); if (( $num % 40000 != 0 )); then rm -r $file; fi; done
for file in work_dirs/teacher_conditional_image_transformer_min_vqgan_mae_cvq_vae_8192_imagenet_ddp/checkpoints/iter_*; do num=$(echo $file | grep -o '[0-9]\+0000'); if (( $num % 40000 != 0 )); then rm -r $file; fi; done
for file in work_dirs/teacher_conditional_image_transformer_min_vqgan_vit_cvq_vae_8192_imagenet_ddp/checkpoints/iter_*; do num=$(echo $file | grep -o '[0-9]\+0000'); if (( $num % 40000 != 0 )); then rm -r $file; fi; done
""",  # noqa: E501
        MADE,
        inputs=('checkpoints',),
    ),
]


def tables() -> str:
    """A table for each section of the document."""
    parts = []
    for section in dict.fromkeys(row.section for row in ROWS):
        parts += [f'### {section}', '| printed | run | why it differs |\n|---|---|---|']
        parts[-1] += ''.join(
            f'\n| {cell(row.printed)} | {run_of(row)} | {why(row)} |' for row in ROWS if row.section == section
        )
    return '\n\n'.join(parts)


def run_of(row: Row) -> str:
    if not row.lines:
        return 'not run'
    return 'the same' if row.lines == (row.printed,) else '<br>'.join(map(cell, row.lines))


def why(row: Row) -> str:
    named = [f'{name} = `{value}`' for settings in row.settings for name, value in settings.items()]
    return '; '.join([*(reason.text for reason in row.reasons), *named])


def cell(line: str) -> str:
    """Code in a table, in one line."""
    text = ' '.join(line.replace('\\\n', ' ').split()).replace('|', '\\|')
    return f'`{text}`'


def written(page: str) -> str:
    """The page with the tables of these rows."""
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f'{before}{BEGIN}\n\n{tables()}\n\n{END}{after}'


if __name__ == '__main__':
    PAGE.write_text(written(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
