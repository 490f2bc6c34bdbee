"""Parallel tempering between a prior and a posterior."""
