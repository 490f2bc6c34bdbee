"""Model evidence of any Pyro model."""
