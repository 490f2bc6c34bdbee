"""What an evidence estimate needs to know about a joint posterior: optima, mass and draws."""
