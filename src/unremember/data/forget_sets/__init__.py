"""Forget sets designed by somebody: transforms of a split, one file for each design."""
