"""Published text-to-image models, and that of faces, for layout to image: networks, autoencoders and vocabularies."""

from __future__ import annotations

from vq.io.published.entries import Published, RemoteFile

OMMER = 'https://ommer-lab.com/files/latent-diffusion'
README = 'https://github.com/CompVis/latent-diffusion (README.md, scripts/download_models.sh)'
WEIGHTS = 'diffusion_pytorch_model.safetensors'
PARTS = {  # what is fetched of a folder of Stable Diffusion
    'text': ('text_encoder/model.safetensors', 'tokenizer/vocab.json', 'tokenizer/merges.txt'),
    'unet': (f'unet/{WEIGHTS}', f'vae/{WEIGHTS}', 'vae/config.json'),
}
MODELS = {  # folder below that of pretrained files -> name, repository, public page with it
    'sd15': (
        'Stable Diffusion 1.5',
        'stable-diffusion-v1-5/stable-diffusion-v1-5',
        'https://github.com/huggingface/diffusers',
    ),
    'sd21': (
        'Stable Diffusion 2.1 (base)',
        'stabilityai/stable-diffusion-2-1-base',
        'https://github.com/ml-explore/mlx-examples (stable_diffusion/stable_diffusion/model_io.py)',
    ),
}
ABOUT = {'text': 'text encoder and vocabulary', 'unet': 'UNet and autoencoder'}


def _diffusers(folder: str, part: str) -> Published:
    """A part of a model in the layout of diffusers."""
    name, repository, source = MODELS[folder]
    files = tuple(
        RemoteFile(f'https://huggingface.co/{repository}/resolve/main/{path}', f'{folder}/{path}', None, source)
        for path in PARTS[part]
    )
    return Published(f'{folder}-{part}', f'{ABOUT[part]} of {name} ({repository})', files)


TEXT_TO_IMAGE = (
    Published(
        'ldm-text2img',
        'text-to-image model of latent diffusion, 1.45 billion parameters: UNet, KL autoencoder and text encoder in one file',
        (RemoteFile(f'{OMMER}/nitro/txt2img-f8-large/model.ckpt', 'ldm/txt2img-f8-large.ckpt', None, README),),
    ),
    Published(
        'bert-vocabulary',
        'words of BERT, which the text encoder of latent diffusion reads (google-bert/bert-base-uncased)',
        (
            RemoteFile(
                'https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt',
                'ldm/bert/vocab.txt',
                None,
                'https://github.com/huggingface/transformers (docs of BERT)',
            ),
        ),
    ),
    Published(
        'ldm-celeba',
        'latent diffusion of CelebA-HQ: UNet and VQ autoencoder, a zip of model.ckpt',
        (RemoteFile(f'{OMMER}/celeba.zip', 'ldm/celeba.zip', None, README),),
    ),
    *(_diffusers(folder, part) for folder in MODELS for part in PARTS),
)
