"""What a report says, as data: of a tokenizer, a generator, a classifier, and of the run itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (N, H, W, 3)
Results = Mapping[str, Any]


@dataclasses.dataclass
class Origin:
    """The run, what it cost, and where it comes from."""

    name: str  # of the run
    journal: list[dict[str, Any]]  # lines of log.jsonl
    commands: Sequence[tuple[str, float | None]]  # (as typed, seconds)
    config: str
    machine: Sequence[tuple[str, str]]  # of the report, or of the run
    commands_are: str = ''  # what the commands did, as a sentence
    tiny: bool = False  # a dry run: everything is small, and figures are meaningless
    state: str = ''  # 'still training: step 300 of 700'
    cost: Sequence[tuple[str, str]] = ()
    git: str = ''
    results: Sequence[tuple[str, Results]] = ()  # (place, results) of vq.val and vq.test, in order
    left_out: list[str] = dataclasses.field(default_factory=list)  # what the page lacks, and why

    @property
    def training(self) -> list[dict[str, Any]]:
        return [line for line in self.journal if line['kind'] == 'train']


@dataclasses.dataclass
class Samples:
    """Held-out images with what a tokenizer makes of them."""

    categories: list[str]
    ids: list[str]
    images: Pixels
    reconstructions: Pixels | None  # None: the tokenizer makes no pixels
    baseline: Pixels | None
    tokens: NDArray[np.int64] | None  # (N, h, w), or another shape of tokens; None: continuous
    latents: NDArray[np.float32] | None = None  # (N, C, h, w) of a continuous tokenizer


@dataclasses.dataclass
class TokenizerFacts:
    """A tokenizer, measured."""

    validations: Sequence[tuple[int, Results]]  # (step, results) on the first held-out split, in order
    held_out: dict[str, tuple[Results, Results | None]]  # split -> (tokenizer, baseline)
    classifier: Results | None  # of the classifier that evaluates reconstructions, on real images
    samples: Samples | None
    counts: dict[str, list[int]]  # split -> uses of each code
    codes: int  # 0: continuous
    code_pictures: Pixels | None  # (K, p, p, 3), the mean patch of each code
    baseline_pictures: Pixels | None  # (K, p, p, 3)
    train_images: int
    parameters: int
    image_size: int
    bits: float  # per token, the mean over codebooks
    tokens: int  # of an image
    seconds: float | None  # of the training
    decoded: Pixels | None = None  # (K, p, p, 3): the middle of a map that consists of one code, decoded
    shown_codes: Sequence[int] = ()  # the codes in ``code_pictures`` and ``decoded``; () means all
    codebooks: int = 1  # in each cell
    noun: str = 'images'  # what the images are
    chosen: str = ''  # how ``samples`` were chosen, as a sentence
    where: str = ''  # the machine, for the card of the training time: ', on the CPU'


@dataclasses.dataclass
class Drawn:
    """Images drawn with the same settings."""

    images: Pixels
    asked: NDArray[np.int64]  # (N,) requested classes; zeros if there are none
    named: NDArray[np.int64] | None  # (N,) classes predicted by a classifier
    results: Results


@dataclasses.dataclass
class Neighbours:
    """Drawn images, and for each the training images that share the most tokens with it."""

    categories: list[str]
    images: Pixels
    training: Pixels  # (N, k, H, W, 3), nearest first
    ids: list[list[str]]  # (N, k)
    shares: NDArray[np.float64]  # (N, k)


@dataclasses.dataclass
class Completions:
    """Held-out images whose second half was resampled."""

    categories: list[str]
    ids: list[str]
    images: Pixels  # from all of their tokens
    kept: NDArray[np.bool_]  # (h, w): True for tokens that are kept
    made: Pixels  # (N, k, H, W, 3)
    tokens_kept: int
    completed: int  # number of images that were completed
    agreement: float | None  # over all completed images; None: there is no classifier


@dataclasses.dataclass
class Composition:
    """Images of two classes at once."""

    images: Pixels  # (N, H, W, 3)
    pairs: list[tuple[str, str]]  # (N,) names
    one: float | None  # share whose likeliest class is one of the two, according to a classifier; None: there is none
    both: float | None  # share whose two likeliest classes are the two
    chance: tuple[float, float]  # of one, and of both


@dataclasses.dataclass
class EnergyFacts:
    """What the energies of a denoiser say."""

    curve: NDArray[np.float64]  # (3, K): lower quartile, mean and upper quartile over samples, at each state
    fell: float  # share of samples whose energy is lower at the last state than at the first
    samples: int
    cost: tuple[float, float]  # operations of a training step and of an estimate, times those without an energy
    composition: Composition | None = None  # None: it draws no classes
    likelihood: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # energies of held-out images, of letters
    auroc: float | None = None  # of these
    letters: Pixels | None = None  # the first ones


@dataclasses.dataclass
class GeneratorFacts:
    """Whatever draws images, measured."""

    journal: list[dict[str, Any]]  # lines of its log.jsonl
    drawn: dict[str, Drawn]  # 'guided', 'unguided'; the first one is the config's way
    real: Results | None  # the same figures of held-out images
    how: str  # the generator and its sampling settings, as sentences
    neighbours: Neighbours | None
    completions: Completions | None
    parameters: int
    seconds: float | None  # of the training
    noun: str = 'images'
    where: str = ''
    names: Sequence[str] = ()  # of the classes
    counts: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # of whose tokens -> uses of each code
    others: dict[str, Results] = dataclasses.field(default_factory=dict)  # further columns of figures
    tokens: bool = True  # False: it draws images without tokens, as a denoiser does
    loss: tuple[str, str] = ('cross_entropy', 'nats per token')  # its name in the journal, and its unit
    history: Pixels | None = None  # (K, N, H, W, 3): K states on the way to the first N images, from noise
    energy: EnergyFacts | None = None  # of a denoiser that has one


@dataclasses.dataclass
class ClassifierFacts:
    """A classifier on a held-out split."""

    split: str
    names: Sequence[str]
    confusion: NDArray[np.int64]  # (true class, predicted class)
    top5: float
    images: Pixels  # wrongly classified ones
    told: list[tuple[str, str, str]]  # of each: (id, true class, predicted class)
    parameters: int
    train_images: int
    seconds: float | None
    validations: Sequence[tuple[int, Results]]


@dataclasses.dataclass
class Facts:
    """All facts of one page."""

    origin: Origin
    tokenizer: TokenizerFacts | None = None
    generator: GeneratorFacts | None = None
    classifier: ClassifierFacts | None = None
