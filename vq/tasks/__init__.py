"""The models runners drive: each turns a batch into named losses and validation outputs."""
