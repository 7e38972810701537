"""The engine: one thread that owns the model and every cache, and what it talks to through bounded queues."""
