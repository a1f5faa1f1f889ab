"""Write a trained model in a Hugging Face layout: ``python -m vq.tools.export_hugging_face RUN FOLDER``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.cli.export_autoencoder import export_autoencoder, is_autoencoder
from vq.cli.export_denoiser import export_dit, is_denoiser, load_denoiser
from vq.cli.export_mar import FILE, export_mar, is_continuous
from vq.core import environment

EPILOG = """
examples:
  vq export digits_line digits_llama    a run that was trained with rope=line
  vq export kl vae                      a run of a KL autoencoder, or a file that vq convert wrote
  vq export digits_diffusion dit --inexact    a run of a DiT, or a file that vq convert dit wrote
  vq export digits_mar mar              a run of MAR with prediction=epsilon

transformers.LlamaForCausalLM.from_pretrained(FOLDER) gives the logits of the generator, and servers of Llama models load
FOLDER unmodified. A sequence begins with the id of a class; vq.json in FOLDER says which ids are classes, which one is
the null class (the negative prompt of guidance), and which are image tokens. Only image tokens may be sampled:
generation_config.json suppresses all other ids; a server that does not read this file needs the list as a setting.

Only networks with one-dimensional positions can be written (a LlamaNetwork without grid).

A KL autoencoder is written for diffusers.AutoencoderKL.from_pretrained(FOLDER), with equal outputs; statistics of its latents
become scaling_factor and shift_factor, or latents_mean and latents_std. A representation autoencoder on DINOv2 with registers
is written for diffusers.AutoencoderRAE.from_pretrained(FOLDER), with its encoder.

A DiT in the published form is written for diffusers.DiTTransformer2DModel.from_pretrained(FOLDER), with equal outputs if its
time_period is that of diffusers. Its timestep is t T - 1 for the time t of T steps; vq.json says the rest.

A MAR in the published form is written as checkpoint-last.pth of the published code, weights and average, which its --resume
FOLDER reads; vq.json has the settings of its constructor. It makes latents of the run's tokenizer, normalized as in the run.
"""


def make_parser() -> Any:
    parser = arguments.parser('vq.tools.export_hugging_face', 'Write a trained model in a Hugging Face layout.')
    parser.epilog = EPILOG
    parser.add_argument('run', metavar='RUN', help='NAME or folder of a run, or one of its checkpoints')
    parser.add_argument('folder', metavar='FOLDER', help='where to write, a new folder')
    parser.add_argument('--inexact', action='store_true', help='write a DiT whose period of time is not that of diffusers')
    parser.add_argument('--weights', default='auto', choices=('auto', 'model', 'ema'), help='which weights of the checkpoint')
    arguments.add_trust(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq.tools.export_hugging_face')
    environment.prepare()
    from vq.io.runs import find

    folder = Path(options.folder).expanduser()
    run = find(options.run, trust=options.trust)
    if is_denoiser(run):
        about = export_dit(*load_denoiser(run, options.weights), folder, options.inexact)
        outputs = 'equal' if about['exact'] else 'not equal: diffusers has other frequencies of time'
        print(f'{"read":<12} {run.weights}')
        print(f'{"network":<12} {about["prediction"]}, {about["timesteps"]} timesteps, {about["classes"]} classes')
        print(f'{"outputs":<12} {outputs}')
        print(f'{"written":<12} {folder}')
        return 0
    if is_autoencoder(run):
        settings = export_autoencoder(run, options.weights, folder)
        print(f'{"read":<12} {run.weights}')
        channels = settings.get('latent_channels') or settings['encoder_hidden_size']
        print(f'{"latent":<12} {channels} channels, scaling factor {settings["scaling_factor"]:.6g}')
        print(f'{"written":<12} {folder}')
        return 0
    if is_continuous(run):
        about = export_mar(run, folder)
        print(f'{"read":<12} {run.weights}')
        print(f'{"network":<12} {about["encoder_embed_dim"]} channels, {about["class_num"]} classes')
        print(f'{"written":<12} {folder / FILE}')
        return 0
    generator, source = load_generator(run, options.weights)
    about = export(generator, folder)
    print(f'{"read":<12} {source}')
    print(f'{"ids":<12} {about["vocabulary"]}: image tokens from {about["first"]}, {about["tokens"]} of them')
    print(f'{"sequence":<12} {about["positions"]} tokens after the start')
    print(f'{"written":<12} {folder}')
    return 0


def load_generator(run: Any, weights: Any) -> tuple[Any, str]:
    """The generator of a run, in eval mode on the CPU, and the checkpoint it was read from."""
    from vq.core.errors import UserError
    from vq.core.trust import import_modules
    from vq.interfaces import Task
    from vq.io.weights import load_model_from
    from vq.registries import VQGeneratorRegistry

    if run.checkpoint is None:
        raise UserError(f'{run.weights} is a file, which does not name its generator', 'Give a run or a checkpoint.')
    config = dict(run.model.get('generator') or {})
    if not config:
        raise UserError(f'{run.name} holds a {run.model.get("type")}, which has no generator', 'Give the run of a generator.')
    import_modules(run.custom_imports)
    task = Task()  # only the generator: the tokenizer is not loaded
    tokens = run.spec.tokens
    if tokens is not None:  # a task fills these in from its tokenizer, which is not built here
        config = {'cells': tokens.cells, 'codebooks': tokens.codebooks, **config}
    generator = VQGeneratorRegistry.build(config, 'model.generator')
    task.generator = generator
    load_model_from(task, [run], weights=weights)
    return generator.eval(), str(run.weights)


def export(generator: Any, folder: Path) -> dict[str, Any]:
    """Write a generator. Returns the meaning of the ids."""
    from vq.core.errors import UserError
    from vq.generators.autoregressive import Autoregressive
    from vq.generators.networks.llama import LlamaNetwork
    from vq.io.hugging_face import LlamaShape, llama_tensors, write_llama

    network = getattr(generator, 'network', None)
    if not isinstance(generator, Autoregressive) or not isinstance(network, LlamaNetwork):
        raise UserError(
            f'{type(generator).__name__} with {type(network).__name__} has no Hugging Face Llama layout',
            'Only an Autoregressive generator with a LlamaNetwork has one.',
        )
    if network.grid is not None or network.prefix:
        raise UserError(
            'the network has two-dimensional positions, or a prefix without positions; Hugging Face Llama has neither',
            'Train with one-dimensional positions: grid=None and prefix=0 of LlamaNetwork, with its length.',
        )
    extra = None
    if not generator.joint:
        extra = generator.class_embedding.weight if generator.classes else generator.start[None]
    segments = generator.segments
    first, vocabulary = segments.starts[0], segments.end + (0 if extra is None else len(extra))
    offset = 0 if generator.joint else segments.end  # the id of class 0
    about = {
        'token_shape': list(generator.tokens.shape),
        'positions': generator.positions,
        'vocabulary': vocabulary,
        'first': first,
        'tokens': segments.end - first,
        'segments': [[start, start + size] for start, size in zip(segments.starts, segments.sizes, strict=True)],
        'classes': [offset, offset + generator.classes] if generator.classes else None,
        'null_class': offset + generator.classes if generator.has_null else None,
        'start': None if generator.classes else offset,
    }
    generation = {
        'do_sample': True,
        'max_new_tokens': generator.positions,
        'min_new_tokens': generator.positions,
        'suppress_tokens': [*range(first), *range(segments.end, vocabulary)],
        'bos_token_id': about['start'],
    }
    shape = LlamaShape(network.heads, network.kv_heads, network.length, network.norm_eps, network.rope_base)
    write_llama(folder, llama_tensors(network.state_dict(), shape, extra), shape, generation, about)
    return about
