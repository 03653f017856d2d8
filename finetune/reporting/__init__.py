"""The page at the end of a run: its numbers, its figures, and where they came from."""
