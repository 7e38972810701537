"""The stream's memory: the slot cache and the policies that decide what stays in its window."""
