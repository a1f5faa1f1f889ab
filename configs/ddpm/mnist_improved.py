"""MNIST by improved DDPM (Nichol and Dhariwal 2021): mnist.py with a learned variance, and times where losses are large.

    auto_torchrun -m vq.train mnist_improved configs/ddpm/mnist_improved.py
    auto_torchrun -m vq.val mnist_improved --override .trainer.model.bits_steps:250

The network estimates the variance of the reverse process too, which the variational bound trains. The law of times is uniform
until each time has 10 losses. From then on p is proportional to the root of the mean squared loss at a time, and losses have
the weights 1 / (T p). All ranks share its state, and checkpoints hold it. 250 ancestral steps draw an image.

Hardware and hours: not measured. Never trained here, so nothing can be said about what to expect; the paper has no figures of
MNIST.

Options: those of mnist.py.
"""

from vq.recipes import improved_ddpm

_export_ = improved_ddpm(_kwargs_)
