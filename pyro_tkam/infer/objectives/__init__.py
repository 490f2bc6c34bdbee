"""Training objectives for ``pyro.infer.SVI``."""
