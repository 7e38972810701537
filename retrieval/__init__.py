"""Finding stored video again: time spans in questions, representatives of blocks, an index over them, selection."""
