"""Train a new pixel decoder on the tokens of a frozen tokenizer, with the losses, data and runner of a tokenizer's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from vq.core.errors import ConfigError
from vq.core.recipe import Config, Given, Part, config_of, merge, recipe
from vq.recipes.data import image_size_in
from vq.recipes.frozen import OF_CODEBOOKS, frozen_tokenizer
from vq.recipes.parts import by_name, kind_of
from vq.recipes.strategy import chosen

IR_CONFIG = 'configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py'
TASKS = dict(ImageTokenization='ImageReconstruction', AdversarialTokenization='AdversarialReconstruction')
WATCH_CODES = ('CodebookAlarmCallback', 'KMeansInitCallback', 'ReinitCallback')
OF_FROZEN = ('tokenizer.encoder', 'tokenizer.post_encode', 'tokenizer.quantizer')  # an AnnealCallback on these is dropped
OF_DECODER = ('width', 'multipliers', 'refine')  # options of the new decoder, not passed to the tokenizer's config
SIZES = dict(vqkd=dict(dim=768, depth=12, heads=12), vqkd_large=dict(dim=1280, depth=32, heads=16))


@recipe(frozen_tokenizer, hides=('image_size', 'ir_config', 'ir_state_dict', 'gives'))
def pixel_decoder(
    given: Given,
    *,
    ir_config: Annotated[str, 'config whose decoder, losses, data and runner are taken', config_of('ir')] = IR_CONFIG,
    decoder: Annotated[str | Part, 'vqgan (of ir_config), vqkd (ViT), vqkd_large, or dict(type=...)'] = 'vqgan',
    patch: Annotated[int, 'patch size of a ViTDecoder in pixels: the side of a token'] = 16,
) -> Config:
    """A decoder for a frozen tokenizer. ``ir_config`` sets the image size. Pixels per token must match the tokenizer.

        image x -> frozen encoder -> frozen codes -> z -> pre_decode -> decoder -> x'
        decoder:        the pixel losses and the adversarial term of ``ir_config``
        discriminator:  that of ``ir_config``

    16 x 16 pixels per token: ``multipliers`` (1, 1, 2, 2, 4), or ``patch`` 16. 8 x 8 pixels: (1, 1, 2, 4), or 8.
    """
    ir = given.load(ir_config, 'ir', ('tokenizer_run', 'it_config', 'it_state_dict', 'ir_config', 'ir_state_dict'))
    model, tiny = _model(ir), _model(ir.get('tiny', {}))
    task = kind_of(model)
    if task not in TASKS or 'decoder' not in model.get('tokenizer', {}):
        raise ConfigError(
            f'ir_config: {ir_config} trains {task or "no model"}, so it has no pixel decoder',
            'Give a config of the image tokenization task whose tokenizer has a decoder: configs/vqgan/8192_imagenet_ddp.py.',
        )
    size = image_size_in(dict(trainer=ir['validator']))
    frozen = frozen_tokenizer(given, OF_DECODER, image_size=size)
    own, small, connector = model.pop('tokenizer'), tiny.pop('tokenizer', {}), None
    part: Part
    if decoder == 'vqgan':
        connector = own.get('pre_decode')
        part = _taken(own, None if connector is None else 256)  # without a connector in_channels is the width of the codes
        small = _taken(small, None) if 'decoder' in small else {}
    elif isinstance(decoder, Mapping):
        part, small = dict(decoder), {}
    elif decoder in SIZES:
        if not isinstance(size, int):
            raise ConfigError(f'images are {size[0]} x {size[1]}', 'A ViT decoder makes squares: take decoder::vqgan.')
        part = dict(type='ViTDecoder', patch=patch, grid=size // patch, **SIZES[decoder])
        small = dict(dim=16, depth=1, heads=2, grid=2)
    else:
        raise ConfigError(f"decoder is '{decoder}'", f'Choose vqgan, {", ".join(SIZES)}, or give dict(type=...).')
    tokenizer = dict(type='TokenizerWithDecoder', frozen=frozen.part, decoder=part)
    model |= dict(type=TASKS[task], tokenizer=tokenizer | chosen(pre_decode=connector, perturbation=own.get('perturbation')))
    _drop_codebooks(ir, ir.get('tiny', {}))
    ir['validator']['metrics'] = {**ir['validator'].get('metrics', {}), **frozen.metrics}
    imports = list(dict.fromkeys([*ir.get('custom_imports', []), *frozen.custom_imports]))
    changes = dict(trainer=dict(model=dict(tokenizer=dict(frozen=frozen.tiny, decoder=small))))
    changes['validator'] = dict(metrics=frozen.tiny_metrics) if frozen.tiny_metrics else {}
    return merge(ir, dict(tiny=changes) if 'tiny' in ir else {}, dict(custom_imports=imports) if imports else {})


def _model(config: Config) -> Any:
    return config.get('trainer', {}).get('model', {})


def _taken(tokenizer: Part, default: int | None) -> Part:
    """The decoder of a tokenizer (or of its tiny form). Its in_channels default to the encoder's out_channels, or ``default``.

    The two differ where the encoder ends in one logit per code (Gumbel).
    """
    inside = tokenizer.get('encoder', {}).get('out_channels', default)
    return {**chosen(in_channels=inside), **tokenizer['decoder']}


def _drop_codebooks(config: Config, tiny: Config) -> None:
    """Remove callbacks that monitor or change a codebook, and metrics that count codes: the codebook is frozen."""
    for runner, name in (('trainer', 'callbacks'), ('validator', 'metrics')):
        parts = config.get(runner, {})
        gone = {key for key, part in by_name(parts.get(name, {})).items() if part is not None and _of_codes(part)}
        for form in (parts, tiny.get(runner, {})):
            if name in form:
                form[name] = {key: part for key, part in by_name(form[name]).items() if key not in gone}


def _of_codes(part: Part) -> bool:
    return kind_of(part) in (*WATCH_CODES, *OF_CODEBOOKS) or str(part.get('setting', '')).startswith(OF_FROZEN)
