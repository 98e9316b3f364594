"""From the stream of watches to callbacks, iterators and mirrors."""
