"""Measurements; each is a module with a command line that prints one JSON object as its last line."""
