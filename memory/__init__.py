"""The stream's memory: the slot cache, the policies that decide what stays in its window, and the store on disk."""
