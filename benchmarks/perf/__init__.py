"""Speed and memory: how flat a step stays, and what answering costs watching."""
