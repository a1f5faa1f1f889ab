"""Handwritten digits by MAR: continuous tokens in a random order, on the latents of a KL autoencoder of digits, with guidance.

    auto_torchrun -m vq.train digits_kl configs/digits/kl.py
    python -m vq.tools.latents digits_kl --load-model-from digits_kl
    auto_torchrun -m vq.train digits_mar configs/mar/digits.py --config-options \\
        tokenizer_run::work_dirs/digits_kl_latents/tokenizer.safetensors
    auto_torchrun -m vq.sample digits_mar --classes 3 7 --guidance 2 --num-iter 16

The head estimates v: on the published path an error in epsilon grows by 1 / alpha = 20,000 at the noisy end, and a head
that learned for minutes, drawn in 25 steps, gives latents a thousand times too large. The second command puts mean and
deviation of the latents into a file of the tokenizer. Measured with three seeds: 167 to 179 seconds of CPU time with one
thread. Of 300 digits a classifier of ../ic/digits.py assigns 99 to 100 % to the requested class (95 to 98 % without
guidance); distance within a class, relative to real digits, 0.70 to 0.71 (0.79 to 0.80). Expected: at least 95 % (85 %),
and 0.65.

Options: ``tokenizer_run`` (any run of configs/digits/kl.py), ``features_run`` (a run of ic/digits.py: figures on the features
of that classifier), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_mar

_export_ = digits_mar(_kwargs_, iters=400, save_every=200, pictures_every=200)
