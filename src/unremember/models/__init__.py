"""Models: loading, saving and hashing; small presets; the parts of a causal language model."""
