"""The command lines that the document of mar_ebwm prints, and ours.

``python -m tests.end_to_end.document_004`` writes the section of docs/energy.md from these rows, which stand in the order of
the document. A printed line is verbatim, with its line breaks.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

from tests.end_to_end.document_003 import blocks, commands

PAGE = Path(__file__).parents[2] / 'docs' / 'energy.md'
BEGIN, END = (
    '<!-- written by tests/end_to_end/document_004.py -->',
    '<!-- end of what tests/end_to_end/document_004.py writes -->',
)
VALUES = {  # of its ${...}, in the test
    'IMAGENET_PATH': 'data/imagenet',
    'CACHED_PATH': 'cached',
    'RUN_NAME': 'energy_base',
    'OUTPUT_DIR': 'work_dirs',
    'NODE_RANK': '0',
    'MASTER_ADDR': 'localhost',
    'MASTER_PORT': '29500',
}


@dataclasses.dataclass(frozen=True)
class Row:
    """``printed``: lines of the document. ``ours``: the command that does it, or nothing. ``not_run``: why no test runs it."""

    about: str
    printed: tuple[str, ...]
    ours: str = ''
    not_run: str = ''


def evaluation(size: str, depth: int, width: int, batch: int, scale: str) -> Row:
    printed = f"""torchrun --nproc_per_node=8 --nnodes=1 --node_rank=0 \\
main_mar.py \\
--model mar_{size} --diffloss_d {depth} --diffloss_w {width} \\
--eval_bsz {batch} --num_images 50000 \\
--num_iter 256 --num_sampling_steps 100 --cfg {scale} --cfg_schedule linear --temperature 1.0 \\
--output_dir pretrained_models/mar/mar_{size} \\
--resume pretrained_models/mar/mar_{size} \\
--data_path ${{IMAGENET_PATH}} --evaluate"""
    ours = f"""vq --nproc-per-node 8 val mar_{size} mar/{size}_imagenet_ddp.py tokenizer_run=kl16 num_iter=256 \\
    guidance={scale} temperature=1.0 val_batch_size={batch} data_root=${{IMAGENET_PATH}} "draws=('generated',)" \\
    --load-model-from mar-{size}"""
    about = (
        f'FID and Inception Score of MAR-{size[0].upper()} on 50,000 images, one for each image of the validation split, so '
        '50 of each class. Size of the head, linear guidance and 100 ancestral steps are those of the config; weights are the '
        'published average.'
    )
    return Row(about, (printed,), ours)


ROWS: list[Row] = [
    Row(
        'The code and its environment. `environment.yaml` pins a conda environment; here pip installs what is needed, and '
        '`vq doctor` says what is there.',
        (
            'git clone git@github.com:Averyyy/mar_ebwm.git',
            'cd mar_ebwm',
            'conda env create -f environment.yaml',
            'conda activate ebm_gh200',
        ),
        """python -m venv .venv && . .venv/bin/activate
pip install 'vq[tensorboard,wandb]'""",
        not_run='it installs packages',
    ),
    Row(
        'Weights: KL-16 and the three sizes of MAR, checked and converted. Files of energy diffusion are not published: the '
        'links of its table say TODO. Checkpoints of its code are read by `vq convert mar_energy FILE`.',
        ('python util/download.py',),
        'python tools/prepare_checkpoints.py kl16 mar',
    ),
    Row(
        'The cache of latents. The second line is printed without a backslash before it, so that the shell runs it alone. '
        'Trainings here read our shards; `--format` also writes its files.',
        (
            r"""torchrun --nproc_per_node=4 --nnodes=1 --node_rank=0 \
main_cache.py \
--img_size 256 --vae_path pretrained_models/vae/kl16.ckpt --vae_embed_dim 16 \
--batch_size 128 \
--data_path ${IMAGENET_PATH} --cached_path ${CACHED_PATH}""",
            '--cache_format ptshard --cache_shard_size 64',
        ),
        r"""vq --nproc-per-node 4 data latents two_stage/klvae_f16_imagenet_ddp.py --load-model-from kl16 \
    --output-folder ${CACHED_PATH} --format ptshard --shard-size 64 data_root=${IMAGENET_PATH} val_batch_size=128""",
    ),
    Row(
        'Energy diffusion of the base size. 500 steps of noise, 20 epochs, the warm-up, the rate, the batch of 256 and the '
        'energy with its inner loop are the settings of the config.',
        (
            r"""torchrun --nproc_per_node=1 --nnodes=2 --node_rank=${NODE_RANK} --master_addr=${MASTER_ADDR} --master_port=${MASTER_PORT} \
main_mar.py \
  --run_name ${RUN_NAME} \
  --img_size 256 \
  --vae_path pretrained_models/vae/kl16.ckpt \
  --model_type pure_diffusion \
  --model pure_diffusion_base \
  --epochs 20 \
  --warmup_epochs 1 \
  --use_energy \
  --use_innerloop_opt \
  --mcmc_step_size 0.001 \
  --diffusion_timesteps 500 \
  --batch_size 128 \
  --num_workers 32 \
  --blr 9e-6 \
  --use_cached \
  --cached_path ${CACHED_PATH} \
  --cached_format ptshard \
  --output_dir ${OUTPUT_DIR} \
  --online_eval \
  --eval_bsz 32 \
  --eval_real_dataset /data/nvme/belh/aqian1/imagenet-1k/val \
  --num_sampling_steps 250 \
  --num_images 1000""",  # noqa: E501
        ),
        r"""vq --nproc-per-node 1 --nnodes 2 --node-rank ${NODE_RANK} --master-addr ${MASTER_ADDR} \
    --master-port ${MASTER_PORT} train ${RUN_NAME} energy/base_energy_imagenet_ddp.py tokenizer_run=kl16 \
    latents=${CACHED_PATH} num_workers=32 steps=250 evaluate_limit=1000 val_batch_size=32 --work-dir ${OUTPUT_DIR}""",
    ),
    evaluation('base', 6, 1024, 256, '2.9'),
    evaluation('large', 8, 1280, 256, '3.0'),
    evaluation('huge', 12, 1536, 128, '3.2'),
    Row(
        'The same without guidance.',
        ('`--cfg 1.0 --temperature 0.95`',),
        r"""vq val mar_base mar/base_imagenet_ddp.py tokenizer_run=kl16 guidance=1.0 temperature=0.95 \
    --load-model-from mar-base""",
    ),
    Row(
        'Faster, and images alone.',
        ('`--num_iter 64`',),
        r"""vq sample mar_base mar/base_imagenet_ddp.py tokenizer_run=kl16 --load-model-from mar-base --num-iter 64 \
    --num-samples 8""",
    ),
]


def printed(document: str) -> list[str]:
    """The command lines of the document that are not commented out, and the words of the options that its text gives."""
    found = commands(blocks(re.sub(r'<!--.*?-->', '', document, flags=re.DOTALL)))
    return [*found, *re.findall(r'`--cfg [^`]*`|`--num_iter [^`]*`', document)]


def words_of(row: Row) -> list[list[str]]:
    """The words of each of our commands, filled in."""
    text = re.sub(r'\$\{(\w+)\}', lambda match: VALUES[match[1]], row.ours)
    return [shlex.split(line.replace('\\\n', ' ')) for line in commands(text)]


def section() -> str:
    parts = []
    for row in ROWS:
        theirs = '\n'.join(line.strip('`') for line in row.printed)
        ours = '\n'.join(f'$ {line}' for line in commands(row.ours))
        parts.append(f'{wrapped(row.about)}\n\n```text\n{theirs}\n```\n\n```console\n{ours}\n```')
    return '\n\n'.join(parts)


def wrapped(text: str, width: int = 127) -> str:
    lines = ['']
    for word in text.split():
        lines[-1:] = [f'{lines[-1]} {word}'.strip()] if len(lines[-1]) + len(word) < width else [lines[-1], word]
    return '\n'.join(lines)


def written(page: str) -> str:
    """The page with the section of these rows."""
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f'{before}{BEGIN}\n\n{section()}\n\n{END}{after}'


if __name__ == '__main__':
    PAGE.write_text(written(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
