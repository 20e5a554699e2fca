"""Forget sets that somebody designs: transforms of a split. One file a design."""
