"""The main job on a shipped sample video: `python -m streamvlm.demo`. Uses the public API only."""
