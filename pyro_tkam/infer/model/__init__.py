"""A Pyro model as a log density on arrays: the only place that runs the user's model."""
