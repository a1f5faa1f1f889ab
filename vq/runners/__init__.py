"""What drives a task: trainer, validator, token writer, and the callbacks around their steps."""
