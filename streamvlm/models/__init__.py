"""Model families: one adapter each, the only code that imports their transformers classes."""
