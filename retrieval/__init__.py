"""Finding stored video again: index, query, time spans. Empty until the memory on disk arrives."""
