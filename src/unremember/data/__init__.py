"""What is learned and forgotten: rows, roles, encoded texts, the order in which they meet."""
