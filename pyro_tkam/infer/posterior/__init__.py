"""What an evidence learns of a joint posterior: its optima, its mass, and draws of it."""
