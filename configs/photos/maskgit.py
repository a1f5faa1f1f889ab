"""New pictures like yours by masked generation: all tokens are predicted at once, and drawn in 8 steps.

    auto_torchrun -m vq.train gen configs/photos/maskgit.py --config-options tokenizer::tok

Run only with few steps, which takes seconds. Expected: pictures like those of ar.py after two to three times as many steps, as
on digits.

Options: those of ar.py, and ``steps`` (8), ``order`` (confidence; halton), ``mask_ratio`` (cosine; mage).
"""

from vq.recipes import photos_generator

_export_ = photos_generator(_kwargs_, method='masked', steps=8, choice_temperature=4.5, label_smoothing=0.1)
