"""Data to learn and to forget: rows, roles, splits, and the order in which rows meet."""
