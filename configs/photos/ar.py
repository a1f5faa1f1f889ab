"""New pictures like yours, one token after the other: a small Llama on the tokens of a run of tokenizer.py.

    auto_torchrun -m vq.train gen configs/photos/ar.py --config-options tokenizer::tok

The same as ``vq train gen photos/ar.py tokenizer=tok``. Everything else comes from the tokenizer's run: docs/photos.md.

Measured once, seed 3407, on the drawn pictures of tests/newcomer.py (see tokenizer.py), with a tokenizer of 500 steps: 1,200
steps took 5.6 minutes of CPU time on a machine shared with many other programs, and 64 pictures 5 seconds. Frechet distance to
28 held-out pictures, in the features of a classifier of the four classes: 3.6 (4.4 with temperature 1); of pictures decoded
from random codes 47.8, of reconstructions 0.3. Rockets and trees are clear, boats mostly, cats rarely.

Options: ``tokenizer`` (a run of this family), ``size`` (S, M, L), ``guidance``, and others: ``vq.config FILE --options``.
"""

from vq.recipes import photos_generator

_export_ = photos_generator(_kwargs_)
