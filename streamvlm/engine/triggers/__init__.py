"""Ways to know that it is time to speak, all behind one interface."""
