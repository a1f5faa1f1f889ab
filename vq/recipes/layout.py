"""Layout to image: latent diffusion with region attention, from nothing or from published text-to-image models."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.denoisers import Kind
from vq.recipes.diffusion import diffusion
from vq.recipes.parts import kind_of
from vq.recipes.segmentation import SPLITS
from vq.recipes.strategy import chosen
from vq.recipes.unet import TINY_UNET, unet_part

Variant = Literal['layout_partial_v2', 'layout_partial_v1', 'layout_no_partial', 'segmentation']
TINY: Part = dict(TINY_UNET, multipliers=(1, 1), attention_at=(1,), adapters_at=(1, 2), layout_dim=8)  # of 4 x 4 cells
TINY_LENGTH, TINY_TEXT = 12, 16  # tokens and channels of the tiny text encoders
OF_DIT = ('denoiser', 'tiny_denoiser', 'form', 'size', 'dim', 'depth', 'patch', 'bottleneck', 'context')
HIDDEN = (*OF_DIT, 'head_depth', 'learned_variance', 'conditioner', 'num_classes')
KL_F8 = 'configs/two_stage/klvae_f8_imagenet_ddp.py'
SETTINGS: dict[str, Any] = dict(path='beta', noise_schedule='scaled_linear', sample_posterior=True)
SETTINGS |= dict(
    it_config=KL_F8, batch_size=64, accumulate=4, betas=(0.9, 0.999), clip=None, ema=0.9999, num_classes=0, evaluate=None
)
TEXTS: dict[str, Part] = {  # by name: what reads captions
    'bert': dict(type='BERTText', file='ldm/txt2img-f8-large.ckpt', tokenizer='ldm/bert'),
    'clip': dict(type='CLIPText', file='sd15/text_encoder/model.safetensors', tokenizer='sd15/tokenizer'),
    'openclip': dict(type='OpenCLIPText', file='sd21/text_encoder/model.safetensors', tokenizer='sd21/tokenizer'),
}
TEXT_DIMS = {'bert': 1280, 'clip': 768, 'openclip': 1024}


class Told(NamedTuple):
    """What the network is told."""

    conditioner: Part
    tiny: Part  # overrides of it in the tiny form
    network: Part  # settings of the network that follow
    variant: str
    reads: bool  # whether it reads texts


@recipe()
def conditions(
    given: Given,
    *,
    labels: Annotated[int, 'classes of boxes, or labels of maps'] = 182,
    layout_drop: Annotated[float, 'share of rows that lose their layout in training'] = 0.1,
    layout_dim: Annotated[int, 'channels of a class vector'] = 128,
    variant: Annotated[
        Variant, 'of the region attention; segmentation: labels of pixels in place of boxes'
    ] = 'layout_partial_v2',
    text: Annotated[Literal['none', 'bert', 'clip', 'openclip'], 'frozen network that reads texts; none: no texts'] = 'none',
    text_file: Annotated[str | None, 'its weights, below the folder of pretrained files; None: as fetched'] = None,
    text_tokenizer: Annotated[str | None, 'folder of its vocabulary, likewise; None: as fetched'] = None,
    text_drop: Annotated[float, 'share of rows that lose their text alone in training'] = 0.0,
    drop: Annotated[float, 'with texts: share of rows that lose layout and text at once; guidance needs it'] = 0.1,
) -> Told:
    """A conditioner of layouts, or of layouts and texts."""
    kind = 'SegmentationConditioner' if variant == 'segmentation' else 'BoxConditioner'
    layout = dict(type=kind, labels=labels, drop=layout_drop)
    if text == 'none':
        return Told(layout, {}, dict(layout_dim=layout_dim), variant, reads=False)
    encoder = dict(TEXTS[text], **chosen(file=text_file, tokenizer=text_tokenizer))
    words = dict(type='TextConditioner', encoder=encoder, drop=text_drop)
    mixed = dict(type='MixedConditioner', parts=dict(layout=layout, text=words), drop=drop)
    small = dict(dim=TINY_TEXT, depth=1, heads=2, length=TINY_LENGTH, vocabulary=257, tokenizer='bytes')
    tiny = dict(parts=dict(text=dict(encoder=small)))
    return Told(mixed, tiny, dict(layout_dim=layout_dim, sequence_dim=TEXT_DIMS[text]), variant, reads=True)


@recipe(unet_part, diffusion, conditions, hides=HIDDEN)
def layout_diffusion(
    given: Given,
    *,
    captions: Annotated[
        Literal['none', 'caption', 'caption_and_classes'] | None, 'COCO: the text of a sample; None: caption if texts are read'
    ] = None,
    heads: Annotated[int, 'attention heads, unless head_dim is given'] = 8,
    head_dim: Annotated[int | None, 'channels of a head'] = None,
    prompts: Annotated[int, 'learned entries behind a text, the task prompt; 0: none'] = 64,
    image_tokens: Annotated[bool, 'cells behind these'] = True,
    attends_to_texts: Annotated[bool, 'transformers that attend to texts and prompts; False: self-attention alone'] = True,
    adapters_at: Annotated[tuple[int, ...], 'levels with region attention, by the factor of their resolution'] = (1, 2),
    prediction: Annotated[Kind, 'what the network estimates'] = 'epsilon',
    elbo_weight: Annotated[float, 'of the error weighted as in the bound, beside the plain one'] = 1.0,
    elbo_rule: Annotated[
        Literal['derived', 'published'], 'its weights of v and x0: derived, or of latent diffusion'
    ] = 'derived',
    trains: Annotated[Literal['all', 'adapters'], 'adapters: weights of the published network stay as they are'] = 'all',
) -> Config:
    """LayoutDiffuse (Cheng et al. 2023): a latent diffusion UNet with region attention behind the attention of some levels.

    The published attention has one head and mixes the classes of boxes that overlap: adapter_type={..., 'own_class': False}.
    """
    told = conditions(given)
    size = dict(heads=heads) if head_dim is None else dict(head_dim=head_dim)
    attention = dict(type='SelfAttention', **size)
    if attends_to_texts:
        attention = dict(attention, type='SpatialTransformer', prompts=prompts, image_tokens=image_tokens)
    sizes: dict[str, Any] = dict(width=320, multipliers=(1, 2, 4, 4), attention_at=(1, 2, 4), dropout=0.0)
    network = unet_part(given, attn_block_type=attention, prediction=prediction, **sizes)
    adapter = dict(type='RegionAttention', variant=told.variant)
    network |= dict(adapter_type=adapter, adapters_at=adapters_at, trains=trains)
    network |= dict(sequence_dim=TEXT_DIMS['bert'] if attends_to_texts else None) | told.network
    little: Part = dict(TINY, attn_block_type=dict(heads=2, head_dim=None))
    if attends_to_texts:
        little['attn_block_type'] |= dict(prompts=min(prompts, 2), prompt_dim=8)
        little['sequence_dim'] = TINY_TEXT
    config = diffusion(given, denoiser=network, tiny_denoiser=little, conditioner=told.conditioner, **SETTINGS)
    config['trainer']['model'].update(elbo_weight=elbo_weight, elbo_rule=elbo_rule)
    texts = captions or ('caption' if told.reads else 'none')
    return merge(config, _captions(config, texts), dict(tiny=_tiny(told, given.said('accumulate'))))


def _captions(config: Config, captions: str) -> Config:
    """The option of COCO; other datasets have one kind of text, or none."""
    of_coco = [which for which in SPLITS if kind_of(config[which]['dataset']) == 'COCOStuffDataset']
    return {which: dict(dataset=dict(captions=captions)) for which in of_coco}


def _tiny(told: Told, accumulates: bool) -> Config:
    """Digits on a canvas in place of photographs, and two micro-batches unless their number was said."""
    little: Part = dict(_delete_=True, type='DigitsCanvasDataset', image_size=32, smallest=8, largest=14, text=told.reads)
    data = {which: dict(dataset=dict(little, split=split)) for which, split in SPLITS.items()}
    model = dict(trainer=dict(model=dict(conditioner=told.tiny), strategy={} if accumulates else dict(accumulate=2)))
    return merge(data, dict(validator=dict(dataset=dict(count=20))), model)
