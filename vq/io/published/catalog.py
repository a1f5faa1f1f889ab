"""Published files of other projects, under the names that ``vq.tools.prepare_checkpoints`` and ``vq.load`` accept.

Every address was read on a public page, which ``source`` names. None has been fetched with this version so far.
"""

from __future__ import annotations

from vq.io.published.catalog_diffusion import TEXT_TO_IMAGE
from vq.io.published.entries import Published, RemoteFile

__all__ = ['CATALOG', 'Published', 'RemoteFile', 'conversions', 'find', 'owner_of']


def _torchvision(file: str, size: int | None, digest: str, module: str, digest_source: str | None = None) -> RemoteFile:
    """A file of torchvision: its name ends with the first 8 digits of its SHA-256."""
    return RemoteFile(
        f'https://download.pytorch.org/models/{file}',
        f'torchvision/{file}',
        f'sha256:{digest}',
        f'https://github.com/pytorch/vision/blob/main/torchvision/models/{module}.py',
        size,
        digest_source,
    )


def _lpips(net: str, size: int, digest: str, digest_source: str) -> RemoteFile:
    """The weights of the linear heads of LPIPS, version 0.1, on top of one network."""
    return RemoteFile(
        f'https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/{net}.pth',
        f'lpips/{net}.pth',
        digest,
        'https://github.com/tracel-ai/burn (crates/burn-train/src/metric/vision/lpips/weights.rs)',
        size,
        digest_source,
        f'lpips/weights/v0.1/{net}.pth',
    )


def _taming(folder: str, name: str, digest: str | None, size: int | None, source: str, proof: str | None) -> RemoteFile:
    """A checkpoint of taming-transformers. Its README links the folder; other pages link the file in the folder."""
    url = f'https://heibox.uni-heidelberg.de/d/{folder}/files/?p=%2Fckpts%2Flast.ckpt&dl=1'
    return RemoteFile(url, f'taming/{name}.ckpt', digest, source, size, proof)


def _llamagen(file: str, digest: str, digest_source: str) -> RemoteFile:
    return RemoteFile(
        f'https://huggingface.co/FoundationVision/LlamaGen/resolve/main/{file}',
        f'llamagen/{file}',
        digest,
        'https://github.com/FoundationVision/LlamaGen (README.md)',
        digest_source=digest_source,
    )


def _beit2(name: str, digest: str) -> RemoteFile:
    """A VQ-KD tokenizer of BEiT v2: the published name ends with the first 8 digits of its SHA-256."""
    return RemoteFile(
        f'https://github.com/addf400/files/releases/download/BEiT-v2/{name}-{digest}.pth',
        f'beitv2/{name}.pth',
        f'sha256:{digest}',
        'https://github.com/microsoft/unilm/blob/master/beit2/TOKENIZER.md',
        digest_source='https://github.com/microsoft/unilm/blob/master/beit2/modeling_vqkd.py',
    )


def _openai(file: str, digest: str) -> RemoteFile:
    """A network of OpenAI's CLIP: its folder is named after the SHA-256 of the file."""
    url = f'https://openaipublic.azureedge.net/clip/models/{digest}/{file}'
    return RemoteFile(url, f'clip/{file}', f'sha256:{digest}', 'https://github.com/openai/CLIP/blob/main/clip/clip.py')


def _laion(network: str, weights: str, repository: str) -> Published:
    """A network of OpenCLIP trained on LAION-2B, by the names in OpenCLIP's table of weights."""
    url = f'https://huggingface.co/laion/{repository}/resolve/main/open_clip_pytorch_model.bin'
    source = 'https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/pretrained.py'
    remote = RemoteFile(url, f'openclip/{network}-{weights}.bin', None, source)
    short = network.removeprefix('ViT-').lower()
    return Published(f'openclip-{short}', f'{network} of OpenCLIP, LAION-2B (laion/{repository})', (remote,))


def _siglip(name: str) -> Published:
    url = f'https://huggingface.co/google/{name}/resolve/main/model.safetensors'
    remote = RemoteFile(url, f'siglip/{name}.safetensors', None, 'https://github.com/fuliucansheng/unitorch (cli, siglip)')
    kind = name.partition('-')[0]
    return Published(kind, f'{kind.replace("siglip", "SigLIP")} B/16 at 224 pixels (google/{name})', (remote,))


def _rae(path: str) -> RemoteFile:
    url = 'https://huggingface.co/nyu-visionx/RAE-collections'
    source = 'https://github.com/bytetriper/RAE (paths as in public code that reads this collection; never fetched)'
    return RemoteFile(f'{url}/resolve/main/{path}', f'rae/{path}', None, source)


def _rae_decoder(name: str, size: str) -> Published:
    about = f'representation autoencoder, {size} decoder on DINOv2 ViT-B/14 with registers (bytetriper/RAE)'
    file, options = _rae(f'decoders/dinov2/wReg_base/{size}_n08/model.pt'), {'statistics': RAE_STATISTICS.path}
    return Published(name, about, (file,), kind='rae_decoder', options=options)


RAE_STATISTICS = _rae('stats/dinov2/wReg_base/imagenet1k/stat.pt')


def _dino(name: str, about: str, aliases: tuple[str, ...] = ()) -> Published:
    url = f'https://dl.fbaipublicfiles.com/dino/{name}/{name}.pth'
    file = RemoteFile(url, f'dino/{name}.pth', None, 'https://github.com/facebookresearch/dino (hubconf.py)')
    return Published(f'dino-{about.removeprefix("ViT-").replace("/", "").lower()}', f'DINO {about}', (file,), aliases=aliases)


def _dinov2(
    size: str, registers: bool, digest: str | None = None, exact: int | None = None, proof: str | None = None
) -> RemoteFile:
    """A file of DINOv2 for patches of 14 pixels, with 4 registers or none."""
    name = f'dinov2_vit{size}14'
    file = f'{name}{"_reg4" if registers else ""}_pretrain.pth'
    url = f'https://dl.fbaipublicfiles.com/dinov2/{name}/{file}'
    return RemoteFile(url, f'dinov2/{file}', digest, 'https://github.com/facebookresearch/dinov2 (README.md)', exact, proof)


_VGG16 = _torchvision(
    'vgg16-397923af.pth',
    553_433_881,
    '397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0',
    'vgg',
    'https://huggingface.co/Keiser41/mangaaa (model/vgg16-397923af.pth)',
)
_ALEXNET = _torchvision(
    'alexnet-owt-7be5be79.pth',
    244_408_911,
    '7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02',
    'alexnet',
    'https://huggingface.co/CSWRY/VOSR/blob/main/torch_cache/checkpoints/alexnet-owt-7be5be79.pth',
)
_VIT = _torchvision('vit_b_16-c867db91.pth', None, 'c867db91', 'vision_transformer')
_CONVNEXT = _torchvision('convnext_base-6075fbad.pth', None, '6075fbad', 'convnext')
_SQUEEZENET = _torchvision('squeezenet1_1-b8a52dc0.pth', 4_958_839, 'b8a52dc0', 'squeezenet')

_BEIT2_CLIP = _beit2('vqkd_encoder_base_decoder_1x768x12_clip', 'd93179da')
_BEIT2_CLIP_3 = _beit2('vqkd_encoder_base_decoder_3x768x12_clip', 'd5036aa7')
_BEIT2_DINO = _beit2('vqkd_encoder_base_decoder_1x768x12_dino', '663c55d7')

_CLIP_APP = 'https://github.com/tnwei/vqgan-clip-app (download-weights.sh)'
_CODE_100 = 'https://github.com/dltechnology/100Code (AI_Art/main.py)'
_PYTTI = 'https://huggingface.co/Somnai/pytti-vqgan-checkpoints'
_IQA = 'https://huggingface.co/chaofengc/IQA-PyTorch-Weights'


def _mar(name: str, file: str, key: str) -> RemoteFile:
    """A file of MAR; all have the same name there. The page gives dl=0, which sends the file itself only to wget."""
    return RemoteFile(
        f'https://www.dropbox.com/scl/fi/{file}/checkpoint-last.pth?rlkey={key}&dl=1',
        f'mar/mar_{name}.pth',
        None,
        'https://github.com/LTH14/mar (util/download.py)',
    )


_MAR = {
    'base': _mar('base', 'f6dpuyjb7fudzxcyhvrhk', 'a6i4bo71vhfo4anp33n9ukujb'),
    'large': _mar('large', 'pxacc5b2mrt3ifw4cah6k', 'm48ovo6g7ivcbosrbdaz0ehqt'),
    'huge': _mar('huge', '1qmfx6fpy3k7j9vcjjs3s', '4lae281yzxb406atp32vzc83o'),
}

CATALOG: tuple[Published, ...] = (
    Published(
        'pytorch-fid',
        'Inception v3 with the TensorFlow weights of 2015, for FID (mseitzer/pytorch-fid)',
        (
            RemoteFile(
                'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth',
                'pytorch-fid/pt_inception-2015-12-05-6726825d.pth',
                'sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
                'https://github.com/mseitzer/pytorch-fid/blob/master/src/pytorch_fid/inception.py',
                95_628_359,
                'https://huggingface.co/JamesHujy/EMABench/commit/f246ee5ecfcd2435c8edd3ecb89bba9f02d6ac03',
            ),
        ),
        aliases=('inception',),
    ),
    Published(
        'clip-l-336',
        'CLIP ViT-L/14 at 336 pixels, for CMMD (openai/clip-vit-large-patch14-336)',
        (
            RemoteFile(
                'https://huggingface.co/openai/clip-vit-large-patch14-336/resolve/main/pytorch_model.bin',
                'clip/clip-vit-large-patch14-336.bin',
                'sha256:c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801',
                'https://huggingface.co/openai/clip-vit-large-patch14-336/blob/main/pytorch_model.bin',
            ),
        ),
    ),
    Published(
        'clip-b-16',
        'CLIP ViT-B/16, as a teacher (openai/CLIP)',
        (_openai('ViT-B-16.pt', '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f'),),
        aliases=('clip',),
    ),
    Published(
        'clip-l-14',
        'CLIP ViT-L/14 at 224 pixels, as a teacher (openai/CLIP)',
        (_openai('ViT-L-14.pt', 'b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836'),),
    ),
    _laion('ViT-B-16', 'laion2b_s34b_b88k', 'CLIP-ViT-B-16-laion2B-s34B-b88K'),
    _laion('ViT-L-14', 'laion2b_s32b_b82k', 'CLIP-ViT-L-14-laion2B-s32B-b82K'),
    _laion('ViT-H-14', 'laion2b_s32b_b79k', 'CLIP-ViT-H-14-laion2B-s32B-b79K'),
    _laion('ViT-bigG-14', 'laion2b_s39b_b160k', 'CLIP-ViT-bigG-14-laion2B-39B-b160k'),
    Published(
        'eva',
        'EVA02-CLIP-B/16 (QuanSun/EVA-CLIP)',
        (
            RemoteFile(
                'https://huggingface.co/QuanSun/EVA-CLIP/resolve/main/EVA02_CLIP_B_psz16_s8B.pt',
                'eva/EVA02_CLIP_B_psz16_s8B.pt',
                None,
                'https://github.com/baaivision/EVA/blob/master/EVA-CLIP/README.md',
            ),
        ),
        aliases=('eva-clip',),
    ),
    _siglip('siglip-base-patch16-224'),
    _siglip('siglip2-base-patch16-224'),
    Published(
        'dinov2-l',
        'DINOv2 ViT-L/14 without registers, for FD-DINOv2 (facebookresearch/dinov2)',
        (
            RemoteFile(
                'https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth',
                'dinov2/dinov2_vitl14_pretrain.pth',
                'sha256:d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428',
                'https://github.com/LutingWang/todd/blob/main/docs/source/pretrained/dino.rst',
                1_217_586_395,
                'https://huggingface.co/CSWRY/VOSR/blob/main/torch_cache/checkpoints/dinov2_vitl14_pretrain.pth',
            ),
        ),
        aliases=('dinov2',),
    ),
    Published(
        'dinov2-s',
        'DINOv2 ViT-S/14 without registers',
        (
            _dinov2(
                's',
                False,
                'sha256:b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9',
                88_283_115,
                'https://huggingface.co/junjiexv/dinov2_vit/commit/c0d683bfee6ab57c6ea47f0a6c9d8530b6b05674',
            ),
        ),
    ),
    Published('dinov2-b', 'DINOv2 ViT-B/14 without registers', (_dinov2('b', False),)),
    Published('dinov2-reg-s', 'DINOv2 ViT-S/14 with registers', (_dinov2('s', True),)),
    Published('dinov2-reg-b', 'DINOv2 ViT-B/14 with registers', (_dinov2('b', True),)),
    Published('dinov2-reg-l', 'DINOv2 ViT-L/14 with registers', (_dinov2('l', True),), aliases=('dinov2-reg',)),
    _dino('dino_vitbase16_pretrain', 'ViT-B/16', ('dino',)),
    _dino('dino_vitbase8_pretrain', 'ViT-B/8'),
    _dino('dino_deitsmall16_pretrain', 'ViT-S/16'),
    _dino('dino_deitsmall8_pretrain', 'ViT-S/8'),
    Published(
        'mae-b',
        'encoder of a masked autoencoder, ViT-B/16 (facebookresearch/mae)',
        (
            RemoteFile(
                'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth',
                'mae/mae_pretrain_vit_base.pth',
                None,
                'https://github.com/facebookresearch/mae (README.md)',
            ),
        ),
        aliases=('mae',),
    ),
    Published(
        'beit2-b',
        'BEiT v2 ViT-B/16, pre-trained, as a teacher (microsoft/unilm)',
        (
            RemoteFile(
                'https://github.com/addf400/files/releases/download/BEiT-v2/beitv2_base_patch16_224_pt1k.pth',
                'beitv2/beitv2_base_patch16_224_pt1k.pth',
                None,
                'https://github.com/microsoft/unilm/tree/master/beit2 (README.md)',
            ),
        ),
    ),
    Published(
        'lpips',
        'heads of the perceptual distance LPIPS v0.1 on VGG16, AlexNet and SqueezeNet (richzhang/PerceptualSimilarity)',
        (
            _lpips(
                'vgg',
                7289,
                'sha256:a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868',  # md5 d507d734... in taming
                f'{_IQA} (LPIPS_v0.1_vgg-a78928a0.pth)',
            ),
            _lpips(
                'alex',
                6009,
                'sha256:df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0',
                f'{_IQA} (LPIPS_v0.1_alex-df73285e.pth)',
            ),
            _lpips(
                'squeeze',
                10811,
                'sha256:4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76',
                f'{_IQA} (LPIPS_v0.1_squeeze-4a5350f2.pth)',
            ),
        ),
    ),
    # single networks come before the group: messages about a missing file name the first entry that has it
    Published('torchvision-vgg16', 'VGG16 trained on ImageNet, under LPIPS (torchvision)', (_VGG16,)),
    Published('torchvision-alexnet', 'AlexNet trained on ImageNet, under LPIPS (torchvision)', (_ALEXNET,)),
    Published('torchvision-squeezenet', 'SqueezeNet 1.1 trained on ImageNet, under LPIPS (torchvision)', (_SQUEEZENET,)),
    Published('torchvision-vit', 'ViT-B/16 trained on ImageNet, as a teacher (torchvision)', (_VIT,), aliases=('vit',)),
    Published('torchvision-convnext', 'ConvNeXt-B trained on ImageNet, as a teacher (torchvision)', (_CONVNEXT,)),
    Published('torchvision', 'the five networks of torchvision', (_VGG16, _ALEXNET, _SQUEEZENET, _VIT, _CONVNEXT)),
    Published(
        'huggingface',
        'GPT-2 medium, the language model (openai-community/gpt2-medium)',
        (
            RemoteFile(
                'https://huggingface.co/openai-community/gpt2-medium/resolve/main/model.safetensors',
                'huggingface/gpt2-medium/model.safetensors',
                None,
                'https://github.com/YuvrajSingh-mist/smolcluster (src/smolcluster/configs/model_weights.yaml)',
            ),
        ),
        aliases=('gpt2-medium',),
    ),
    Published(
        'taming-f16-1024',
        'VQGAN of taming-transformers, ImageNet, f16, 1,024 codes',
        (_taming('8088892a516d4e3baf92', 'vqgan_imagenet_f16_1024', None, None, _CLIP_APP, None),),
        kind='taming',
    ),
    Published(
        'taming-f16-16384',
        'VQGAN of taming-transformers, ImageNet, f16, 16,384 codes',
        (
            _taming(
                'a7530b09fed84f80a887',
                'vqgan_imagenet_f16_16384',
                'sha256:845a68805098cb666420d5db93df53f3a3b6dd443e6dd85c05759c5b998cd663',
                980_092_370,
                _CLIP_APP,
                _PYTTI,
            ),
        ),
        kind='taming',
    ),
    Published(
        'taming-gumbel-f8',
        'Gumbel VQGAN of taming-transformers, OpenImages, f8, 8,192 codes',
        (
            _taming(
                '2e5662443a6b4307b470',
                'vqgan_gumbel_f8',
                'sha256:5cd6c74810ab97e00e942c25403f73afc081e8b19987b31ec0d9ff5b68e7ab14',
                376_581_823,
                _CODE_100,
                f'{_PYTTI} (manifest.json, openimages)',
            ),
        ),
        kind='taming',
    ),
    Published(
        'llamagen-vq-16',
        'VQ-16 of LlamaGen, ImageNet, f16, 16,384 codes of 8 channels',
        (
            _llamagen(
                'vq_ds16_c2i.pt',
                'sha256:109aa8afb2cf3761eec23cdc8644154cb498f5ab7eef2a35264d25e5e0499f7d',
                'https://huggingface.co/hzeroyuke/vae-posttraining',
            ),
        ),
        kind='llamagen',
    ),
    Published(
        'llamagen-vq-8',
        'VQ-8 of LlamaGen, ImageNet, f8, 16,384 codes of 8 channels',
        (
            _llamagen(
                'vq_ds8_c2i.pt',
                'sha256:c70d2966ec012f378793214ff0755087e7c5fe6f035b469995143325dca4a4e3',
                'https://huggingface.co/FoundationVision/LlamaGen/blob/main/vq_ds8_c2i.pt',
            ),
        ),
        kind='llamagen',
    ),
    Published(
        'var-ms-4096',
        'multi-scale VQ-VAE of VAR, 256 pixels, 4,096 codes of 32 channels, ten scales',
        (
            RemoteFile(
                'https://huggingface.co/FoundationVision/var/resolve/main/vae_ch160v4096z32.pth',
                'var/vae_ch160v4096z32.pth',
                None,
                'https://github.com/FoundationVision/VAR (README.md)',
            ),
        ),
        kind='var',
    ),
    Published(
        'mar-kl-16',
        'continuous autoencoder of MAR, ImageNet, f16, 16 channels',
        (
            RemoteFile(
                # the page gives dl=0, which sends the file itself only to wget
                'https://www.dropbox.com/scl/fi/hhmuvaiacrarfg28qxhwz/kl16.ckpt?rlkey=l44xipsezc8atcffdp4q7mwmh&dl=1',
                'mar/kl16.ckpt',
                None,
                'https://github.com/LTH14/mar (util/download.py)',
            ),
        ),
        kind='mar_kl16',
        options={'latent_scale': 0.2325},
        aliases=('kl16',),
    ),
    Published('mar-base', 'MAR-B, ImageNet, 256 pixels, on latents of KL-16', (_MAR['base'],), kind='mar'),
    Published('mar-large', 'MAR-L, ImageNet, 256 pixels, on latents of KL-16', (_MAR['large'],), kind='mar'),
    Published('mar-huge', 'MAR-H, ImageNet, 256 pixels, on latents of KL-16', (_MAR['huge'],), kind='mar'),
    Published('mar', 'the three transformers of MAR', tuple(_MAR.values())),
    Published('rae-dinov2-b-statistics', 'mean and variance of latents (bytetriper/RAE)', (RAE_STATISTICS,)),
    _rae_decoder('rae-dinov2-b', 'ViTB'),
    _rae_decoder('rae-dinov2-b-xl', 'ViTXL'),
    Published('beit2-vqkd-clip', 'VQ-KD of BEiT v2, taught by CLIP ViT-B/16, 8,192 codes', (_BEIT2_CLIP,), kind='beitv2'),
    Published(
        'beit2-vqkd-clip-3',
        'VQ-KD of BEiT v2, taught by CLIP ViT-B/16, three blocks in its feature decoder, 8,192 codes',
        (_BEIT2_CLIP_3,),
        kind='beitv2',
    ),
    Published('beit2-vqkd-dino', 'VQ-KD of BEiT v2, taught by DINO ViT-B/16, 8,192 codes', (_BEIT2_DINO,), kind='beitv2'),
    Published('beitv2', 'the three VQ-KD tokenizers of BEiT v2', (_BEIT2_CLIP, _BEIT2_CLIP_3, _BEIT2_DINO)),
    *TEXT_TO_IMAGE,
)


def find(name: str) -> Published | None:
    """The entry of a name or alias; ``pytorch_fid`` is ``pytorch-fid``."""
    plain = name.replace('_', '-')
    return next((entry for entry in CATALOG if plain in (entry.name, *entry.aliases)), None)


def owner_of(path: str) -> Published | None:
    """The first entry that has the file ``path``."""
    return next((entry for entry in CATALOG if any(remote.path == path for remote in entry.files)), None)


def conversions(entry: Published) -> list[Published]:
    """The entries whose files are converted when ``entry`` is fetched: of a group, those of its files alone."""
    owners = [owner_of(remote.path) for remote in entry.files]
    return [owner for owner in owners if owner is not None and owner.kind is not None]
