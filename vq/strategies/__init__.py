"""Where and how a task runs: one device, DDP, XLA. Models and runners never ask which."""
