"""Convert published checkpoints: ``python -m vq.tools.convert_checkpoints KIND FILE``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError, listing, nearest

if TYPE_CHECKING:
    from vq.io.published.keymap import Converted

KINDS = {
    'taming': 'taming-transformers: VQGAN (VQModel) and its Gumbel form (GumbelVQ), a Lightning .ckpt',
    'llamagen': "LlamaGen's image tokenizers VQ-16 and VQ-8",
    'llamagen_gpt': "LlamaGen's class-conditional transformers GPT-B, L, XL (XXL and 3B by formula)",
    'dit': "DiT's class-conditional denoisers, DiT-XL-2-256x256.pt, DiT-XL-2-512x512.pt and training files of any size",
    'rae_dit': "RAE's class-conditional denoisers with a wide head (DiT-DH), stage2_model.pt",
    'reference': "the reference toolkit's model.pth of a VQGAN, CVQ-VAE or FSQ",
    'var': "VAR's multi-scale tokenizer, vae_ch160v4096z32.pth",
    'beitv2': "BEiT v2's VQ-KD tokenizers, vqkd_encoder_base_decoder_*.pth",
    'mar': "MAR's class-conditional transformers base, large and huge with their diffusion heads, checkpoint-last.pth",
    'mar_kl16': "MAR's continuous autoencoder KL-16, kl16.ckpt",
    'mar_energy': "energy diffusion's denoisers pure_diffusion_* (mar_ebwm), standard and energy, checkpoint-last.pth",
    'rae_decoder': 'the decoders of representation autoencoders (bytetriper/RAE), model.pt',
    'ldm_unet': "UNets of latent diffusion, Stable Diffusion and LayoutDiffuse: a checkpoint of CompVis, or diffusers' folder",
    'ldm_autoencoder': 'VQ and KL autoencoders of latent diffusion, alone or in the checkpoint of a whole model',
    'diffusers_kl': "autoencoders of diffusers (AutoencoderKL): Stable Diffusion's VAE and others, the folder",
    'two_stage': "the two-stage framework's folder of an epoch (MAE-DiT): KL-VAE or ViT-MAE, DiT, or both",
    'serezd': "the VQ-VAE/GAN study's Lightning .ckpt (SerezD), all its quantizers",
    'open_magvit2': "Open-MAGVIT2's image tokenizers (lookup-free), Lightning .ckpt",
    'simvq': "SimVQ's image tokenizers, Lightning .ckpt",
    'tokens': "the reference toolkit's folder of token files ITERATION_RANK.pth",
    'statistics': "the reference toolkit's cached FID statistics, pretrained/fid/*.pth",
}

EPILOG = """
examples:
  vq convert taming last.ckpt --options image_size=256
  vq convert reference model.pth --output pretrained/vq.safetensors

kinds:
{kinds}

options, KEY=VALUE (settings that the tensors do not show):
  taming       image_size=256 legacy=True beta=0.25 temperature=1.0 kl_weight=5e-4 discriminator=True
  llamagen     image_size=256 normalize=True commitment_weight=0.25
  llamagen_gpt image_size=256 heads=N label_drop=0.1
  dit          heads=N label_drop=0.1
  rae_dit      heads=N head_heads=N label_drop=0.1
  reference    image_size=256 distance=l2 normalize=False commitment_weight=0.25 discriminator=True
  var          scales=(1,2,3,4,5,6,8,10,13,16) residual=0.5 commitment_weight=0.25
  beitv2       with_decoder=True heads=N decay=0.99
  mar          heads=N patch=1 label_drop=0.1
  mar_kl16     image_size=256 kl_weight=1e-6 latent_scale=N (0.2325 for the transformers of MAR)
  mar_energy   reduction=mean_then_head multiplier=1.0 timesteps=1000 heads=N label_drop=0.1
  rae_decoder  encoder=dinov2 statistics=stat.pt heads=N tau=0.8
  ldm_unet     heads=8 head_dim=N ema=False own_class=False mixed=True
  ldm_autoencoder image_size=256 latent_scale=0.18215 kl_weight=1e-6 beta=0.25
  diffusers_kl image_size=N kl_weight=1e-6 statistics=True
  two_stage    weights=auto image_size=256 kl_weight=1e-6 norm_groups=32 discriminator=True heads=N
               encoder_heads=N decoder_heads=N label_drop=0.1
  serezd       image_size=256 commitment_weight=0.25 decay=0.95 discriminator=True
               temperature=0.0625 kl_weight=0.00859375 straight_through=False
  open_magvit2 image_size=256 ema=True
  simvq        image_size=128 ema=True commitment_weight=0.25
  tokens       codebook_size=N (needed) image_size=256 dataset=NAME split=NAME shard_size=8192

No code in a file is executed: files are read as tensors and plain values only.
"""

Lines = list[tuple[str, str]]  # rows of the printed table: name, text


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.tools.convert_checkpoints', 'Convert published checkpoints into the formats of vq.')
    parser.epilog = EPILOG.format(kinds='\n'.join(f'  {name:<15} {about}' for name, about in KINDS.items()))
    parser.add_argument('kind', metavar='KIND', choices=KINDS, help=', '.join(KINDS))
    parser.add_argument('file', metavar='FILE', help='the file; a folder for tokens, diffusers_kl, ldm_unet and two_stage')
    parser.add_argument('--options', action=arguments.DictAction, help='settings of the kind, see below')
    parser.add_argument('--suffix', default='.converted', help='the result is FILE with this added (default: %(default)s)')
    parser.add_argument('--output', metavar='PATH', help='write the result here instead')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq.tools.convert_checkpoints')
    environment.prepare()
    file = Path(options.file).expanduser()
    if not options.suffix and not options.output:
        raise UserError('--suffix is empty: the result would replace the file itself', 'Give a suffix, or --output.')
    output = Path(options.output).expanduser() if options.output else file.with_name(file.name + options.suffix)
    for name, text in convert_file(options.kind, file, options.options, output):
        print(f'{name:<12} {text}')
    return 0


def convert_file(kind: str, file: Path, options: Mapping[str, Any], output: Path) -> Lines:
    """Convert ``file`` to ``output``; returns a report, line by line. Errors name the file."""
    if kind not in KINDS:
        raise UserError(f"there is no kind '{kind}'{nearest(kind, KINDS)}", f'There are: {listing(KINDS)}.')
    converter = importlib.import_module(f'vq.io.published.{kind}')
    _check_options(kind, converter.convert, options)
    if output.resolve() == file.resolve():
        raise UserError(f'{output} is the file itself', 'Write the result elsewhere: --output PATH.')
    try:
        if kind == 'tokens':
            return _convert_tokens(converter, file, options, output)
        if kind == 'statistics':
            return _convert_statistics(converter, file, output)
        if kind == 'llamagen_gpt':
            return _convert_generator(converter, kind, file, options, output)
        if kind == 'two_stage':
            from vq.cli.convert_epoch import convert_epoch

            return convert_epoch(converter, kind, file, options, output)
        if kind == 'ldm_unet':
            from vq.cli.convert_unet import convert_unet

            return convert_unet(converter, kind, file, options, output)
        if kind == 'mar':
            return _convert_continuous(converter, kind, file, options, output)
        if kind in ('dit', 'rae_dit', 'mar_energy'):
            return _convert_denoiser(converter, kind, file, options, output)
        return _convert_tokenizer(converter, kind, file, options, output)
    except UserError as error:
        if str(file) in error.message or str(output) in error.message:
            raise
        raise type(error)(f'{file}: {error.message}', error.hint) from error


def _check_options(kind: str, convert: Callable[..., Any], options: Mapping[str, Any]) -> None:
    import inspect

    from vq.core.parameters import describe, fits, parameters_of

    settings = {
        name: parameter
        for name, parameter in parameters_of(convert).items()
        if inspect.signature(convert).parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name, value in options.items():
        if name not in settings:
            known = listing(settings) or 'no options'
            raise UserError(f"kind {kind} has no option '{name}'{nearest(name, settings)}", f'It takes: {known}.')
        if not fits(value, settings[name].annotation):
            wanted = describe(settings[name].annotation)
            raise UserError(
                f"option '{name}' is {value!r:.60}, and {wanted} is needed", f'Write --options {name}:VALUE, or {name}::TEXT.'
            )
    missing = [name for name, parameter in settings.items() if parameter.required and name not in options]
    if missing:
        raise UserError(f'kind {kind} needs the option {listing(missing)}', f'Give it: --options {missing[0]}:VALUE.')


def _convert_tokenizer(converter: Any, kind: str, file: Path, options: Mapping[str, Any], output: Path) -> Lines:
    from vq.io.published.reader import read_state

    weights, more = converter.locate(file) if hasattr(converter, 'locate') else (file, ())
    converted = converter.convert(read_state(weights, converter.NESTS), *more, **options)
    return write_tokenizer(converted, kind, file, output, weights)


def write_tokenizer(converted: Converted, kind: str, file: Path, output: Path, weights: Path | None = None) -> Lines:
    """Write the file of a tokenizer. ``weights``: the file of its weights, if ``file`` is a folder."""
    from vq.assembly.counting import count
    from vq.assembly.matching import PREFIX, fit
    from vq.core.specs import in_words, size_of
    from vq.io.digest import read_digest
    from vq.io.published.converted import write_converted
    from vq.io.values import check_values
    from vq.tasks.spec import spec_of_tokenizer

    shapes = {key: tuple(value.shape) for key, value in converted.tensors.items()}
    tokenizer: Any = fit(converted.tokenizer, shapes, str(file))
    check_values(converted.tensors, {PREFIX + key: value for key, value in tokenizer.state_dict().items()}, file.name)
    found = tokenizer.spec(size_of(converted.image_size))
    discrete = tokenizer.can_tokenize
    write_converted(
        output, converted, kind, file.name, read_digest(weights or file), spec_of_tokenizer(tokenizer, converted.image_size)
    )
    own = sum(key.startswith(PREFIX) for key in shapes)
    others = f', {len(shapes) - own} of the discriminator' if len(shapes) > own else ''
    shown = f'{in_words((found.tokens if discrete else found.latent).shape)} per image of {converted.image_size} pixels'
    if discrete:
        codes, kind_of = (
            f'{tokenizer.codebook_size} of {tokenizer.quantizer.embedding_dim} channels',
            type(tokenizer.quantizer),
        )
        made = [('codes', f'{codes} ({kind_of.__name__})'), ('tokens', shown)]
    else:
        made = [('latent', f'{shown}, continuous ({type(tokenizer).__name__})')]
    return [
        ('read', f'{file} ({kind})'),
        ('tensors', f'{own} of the tokenizer{others}'),
        *(('left out', f'{len(keys)}: {reason}') for reason, keys in converted.dropped.items()),
        *made,
        ('parameters', f'{count(tokenizer):,}'),
        ('written', f'{output} ({output.stat().st_size / 1e6:.1f} MB)'),
        ('to use it', f"vq.load('{output}'), or --load-model-from {output}"),
    ]


def _convert_generator(converter: Any, kind: str, file: Path, options: Mapping[str, Any], output: Path) -> Lines:
    """Write a file of weights for --load-model-from, with the config of the generator in its metadata."""
    import json

    from vq.assembly.counting import count
    from vq.core.specs import in_words
    from vq.io import tensorfile
    from vq.io.atomic import atomic_file
    from vq.io.digest import read_digest
    from vq.io.published.reader import read_state
    from vq.io.values import check_values
    from vq.tasks.spec import spec_of_generator

    converted = converter.convert(read_state(file, converter.NESTS), **options)
    generator = _fit_generator(converted, converter.PREFIX)
    own = {converter.PREFIX + key: value for key, value in generator.state_dict().items()}
    check_values(converted.tensors, own, file.name)
    notes = {
        'vq.format': 'vq.generator',
        'vq.format_version': '1',
        'vq.kind': kind,
        'vq.generator': json.dumps(converted.generator, sort_keys=True),
        'vq.image_size': str(converted.image_size),
        'vq.spec': json.dumps(spec_of_generator(generator, converted.image_size).as_json()),
        'vq.source': file.name,
        'vq.source_sha256': read_digest(file),
    }
    with atomic_file(output, tensorfile.size_of(converted.tensors)) as writer:
        tensorfile.write_tensors(writer, converted.tensors, notes)
    shape = in_words(generator.tokens.shape)
    network = converted.generator['network']
    return [
        ('read', f'{file} ({kind})'),
        ('tensors', f'{len(converted.tensors)} of the generator'),
        *(('left out', f'{len(keys)}: {reason}') for reason, keys in converted.dropped.items()),
        ('tokens', f'{shape} of {in_words(generator.tokens.codebooks)} codes, {generator.classes} classes'),
        ('network', f'{network["depth"]} layers of {network["dim"]} channels, {network["heads"]} heads'),
        ('parameters', f'{count(generator):,}'),
        ('written', f'{output} ({output.stat().st_size / 1e6:.1f} MB)'),
        ('to use it', f'--load-model-from {output}, with a generator of these sizes'),
    ]


def _fit_generator(converted: Any, prefix: str) -> Any:
    """The generator on the meta device; an error unless the tensors have exactly its names and shapes."""
    from vq.registries import VQGeneratorRegistry

    return fit_parts(converted.tensors, {prefix: (VQGeneratorRegistry, converted.generator)})[0]


def fit_parts(tensors: Mapping[str, Any], parts: Mapping[str, tuple[Any, dict[str, Any]]]) -> list[Any]:
    """The parts, prefix of their keys -> (registry, config), on the meta device; an error unless the tensors fit exactly."""
    import torch

    with torch.device('meta'):
        built = [registry.build(config, prefix.rstrip('.')) for prefix, (registry, config) in parts.items()]
    wanted = {
        prefix + key: tuple(value.shape)
        for prefix, part in zip(parts, built, strict=True)
        for key, value in part.state_dict().items()
    }
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    odd = sorted(key for key in {*wanted, *given} if wanted.get(key) != given.get(key))
    if odd:
        what = ' and the '.join(prefix.rstrip('.') for prefix in parts)
        raise UserError(
            f'{len(odd)} tensors do not fit the {what}: {listing(odd, most=4)}',
            'The file is damaged, or of an architecture that cannot be converted.',
        )
    return built


def _convert_denoiser(converter: Any, kind: str, file: Path, options: Mapping[str, Any], output: Path) -> Lines:
    from vq.io.published.reader import read_state

    return write_denoiser(converter.convert(read_state(file, converter.NESTS), **options), kind, file, output)


def write_denoiser(converted: Any, kind: str, file: Path, output: Path) -> Lines:
    """Write a file of weights for --load-model-from, with the configs of denoiser and conditioner in its metadata."""
    import json

    import torch

    from vq.assembly.counting import count
    from vq.core.specs import LatentSpec, in_words
    from vq.io import tensorfile
    from vq.io.atomic import atomic_file
    from vq.io.digest import read_digest
    from vq.io.spec import Spec
    from vq.io.values import check_values
    from vq.registries import VQConditionerRegistry, VQDenoiserRegistry

    parts = {
        'denoiser.': (VQDenoiserRegistry, converted.denoiser),
        'conditioner.': (VQConditionerRegistry, converted.conditioner),
    }
    denoiser, conditioner = fit_parts(converted.tensors, parts)
    own = {prefix + k: v for prefix, p in zip(parts, (denoiser, conditioner), strict=True) for k, v in p.state_dict().items()}
    check_values(converted.tensors, own, file.name)
    network = getattr(denoiser, 'denoiser', denoiser)  # of an energy, the one inside
    computed = network.positions.to_empty(device='cpu').table
    if not torch.allclose(converted.positions[0].float(), computed, atol=1e-4):
        raise UserError('its positions are not the fixed ones of sines', 'A DiT with learned positions cannot be converted.')
    spec = Spec(
        'generator',
        trained_on={'classes': conditioner.classes},
        latent=LatentSpec(denoiser.channels, denoiser.cells),
    )
    notes = {
        'vq.format': 'vq.denoiser',
        'vq.format_version': '1',
        'vq.kind': kind,
        'vq.denoiser': json.dumps(converted.denoiser, sort_keys=True),
        'vq.conditioner': json.dumps(converted.conditioner, sort_keys=True),
        'vq.latent_scale': json.dumps(converted.latent_scale),
        'vq.spec': json.dumps(spec.as_json()),
        'vq.source': file.name,
        'vq.source_sha256': read_digest(file),
    }
    with atomic_file(output, tensorfile.size_of(converted.tensors)) as writer:
        tensorfile.write_tensors(writer, converted.tensors, notes)
    dropped = {'positions: computed': ['pos_embed'], **converted.dropped}
    return [
        ('read', f'{file} ({kind})'),
        ('tensors', f'{len(converted.tensors)} of the denoiser and its conditioner'),
        *(('left out', f'{len(keys)}: {reason}') for reason, keys in dropped.items()),
        ('latent', f'{in_words(denoiser.cells)} cells of {denoiser.channels} channels, {conditioner.classes} classes'),
        ('network', f'{network.depth} layers of {network.dim} channels, {network.heads} heads, patch {network.patch}'),
        ('parameters', f'{count(denoiser) + count(conditioner):,}'),
        ('written', f'{output} ({output.stat().st_size / 1e6:.1f} MB)'),
        ('to use it', f'--load-model-from {output}, with a denoiser of these sizes'),
    ]


def _convert_tokens(converter: Any, file: Path, options: Mapping[str, Any], output: Path) -> Lines:
    report = converter.convert(file, output, **options)
    doubles = f'{report.duplicates} duplicate samples'
    return [
        ('read', f'{file} ({report.files} token files)'),
        ('samples', f'{report.samples}, tokens {" x ".join(map(str, report.token_shape))}'),
        ('left out', doubles + (f', {report.differing} of them with different tokens' if report.differing else '')),
        ('written', f'{output} ({report.shards} shards, sorted by id)'),
        ('to use it', f"vq.io.shards.ShardSet('{output}')"),
    ]


def _convert_statistics(converter: Any, file: Path, output: Path) -> Lines:
    statistics = converter.convert(file)
    converter.write_statistics(output, statistics, file)
    return [
        ('read', f'{file} (statistics)'),
        ('features', f'{len(statistics.mean)}, of {int(statistics.count)} images'),
        ('written', f'{output} ({output.stat().st_size / 1e6:.1f} MB): mean, covariance, count in float64'),
        ('to use it', 'as the reference statistics of the FID metric'),
    ]


def _convert_continuous(converter: Any, kind: str, file: Path, options: Mapping[str, Any], output: Path) -> Lines:
    """Write a file of weights for --load-model-from, with the configs of generator and conditioner in its metadata."""
    import json

    from vq.assembly.counting import count
    from vq.core.specs import LatentSpec, in_words
    from vq.io import tensorfile
    from vq.io.atomic import atomic_file
    from vq.io.digest import read_digest
    from vq.io.published.reader import read_state
    from vq.io.spec import Spec
    from vq.io.values import check_values
    from vq.registries import VQConditionerRegistry, VQContinuousGeneratorRegistry

    converted = converter.convert(read_state(file, converter.NESTS), **options)
    parts = {
        'generator.': (VQContinuousGeneratorRegistry, converted.generator),
        'conditioner.': (VQConditionerRegistry, converted.conditioner),
    }
    generator, conditioner = fit_parts(converted.tensors, parts)
    own = {prefix + k: v for prefix, p in zip(parts, (generator, conditioner), strict=True) for k, v in p.state_dict().items()}
    check_values(converted.tensors, own, file.name)
    trained_on = {'classes': conditioner.classes}
    spec = Spec('generator', trained_on=trained_on, latent=LatentSpec(generator.channels, generator.cells))
    notes = {
        'vq.format': 'vq.continuous',
        'vq.format_version': '1',
        'vq.kind': kind,
        'vq.generator': json.dumps(converted.generator, sort_keys=True),
        'vq.conditioner': json.dumps(converted.conditioner, sort_keys=True),
        'vq.latent_scale': json.dumps(converted.latent_scale),
        'vq.spec': json.dumps(spec.as_json()),
        'vq.source': file.name,
        'vq.source_sha256': read_digest(file),
    }
    with atomic_file(output, tensorfile.size_of(converted.tensors)) as writer:
        tensorfile.write_tensors(writer, converted.tensors, notes)
    return [
        ('read', f'{file} ({kind})'),
        ('tensors', f'{len(converted.tensors)} of the generator and its conditioner'),
        *(('left out', f'{len(keys)}: {reason}') for reason, keys in converted.dropped.items()),
        ('latent', f'{in_words(generator.cells)} cells of {generator.channels} channels, {conditioner.classes} classes'),
        ('network', f'{generator.depth} layers of {generator.dim} channels, {generator.heads} heads, and a decoder'),
        ('parameters', f'{count(generator) + count(conditioner):,}'),
        ('written', f'{output} ({output.stat().st_size / 1e6:.1f} MB)'),
        ('to use it', f'--load-model-from {output}, with a generator of these sizes'),
    ]
