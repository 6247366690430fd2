"""Two caches at once, without servers."""
