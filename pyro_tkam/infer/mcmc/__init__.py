"""Chains: kernels, their adaptation, and many chains in one batch."""
