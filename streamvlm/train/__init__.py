"""Training of the embedded model: tokenizer, architecture, data, packing, loop."""
