"""The video benchmarks: one module reads, asks, scores and exports one of them."""
