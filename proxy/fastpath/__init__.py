"""The fast path: a lean second listener for generation, opened by one-time tokens."""
