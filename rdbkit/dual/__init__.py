"""Two caches at once: what an application writes to one is brought to the other, until it has moved, and back if need be."""
