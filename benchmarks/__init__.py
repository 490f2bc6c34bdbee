"""Side-by-side timings and accuracy; each module is a script that prints JSON."""
