"""Token economy: what is left out between a picture and the memory, by methods that compose behind four protocols."""
