"""Models: load, save, hash; small presets; what lies inside a causal language model."""
