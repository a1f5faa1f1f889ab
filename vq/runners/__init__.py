"""The runners of a task (trainer, validator, token writer, sampler), and the callbacks around their steps."""
