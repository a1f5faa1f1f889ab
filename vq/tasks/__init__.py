"""The models that runners train and evaluate: each turns a batch into named losses and validation outputs."""
