"""Draws from several threads."""

from threading import RLock

PYRO = RLock()
"""Held while a model draws: Pyro keeps one list of effect handlers for all threads."""
