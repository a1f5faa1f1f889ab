"""New pictures like yours, one token after the other: a small Llama on the tokens of a run of tokenizer.py.

    auto_torchrun -m vq.train gen configs/photos/ar.py --config-options tokenizer::tok

The same as ``vq train gen photos/ar.py tokenizer=tok``. Everything else comes from the tokenizer's run: docs/photos.md.

Measured once, seed 3407, on the drawn pictures and the tokenizer of tokenizer.py: 1,200 steps took 6.0 minutes of CPU time on
a machine shared with other programs, and 64 pictures 5 seconds. Frechet distance of 64 samples to 28 held-out pictures, in
the features of a classifier of the four classes: 3.0; 3.5 and 4.5 with temperature 0.9 and 1. Of pictures decoded from random
codes: 39.6, of reconstructions: 0.06. Rockets, trees and boats are clear, cats rarely. The temperature was chosen after seeing
these figures.

Options: ``tokenizer`` (a run of this family), ``size`` (S, M, L), ``guidance``, and others: ``vq.config FILE --options``.
"""

from vq.recipes import photos_generator

_export_ = photos_generator(_kwargs_)
