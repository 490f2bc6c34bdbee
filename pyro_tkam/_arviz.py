"""The one place that knows ArviZ 0.2x from 1.x (numpy and arviz only)."""
