"""What ``unremember experiment`` runs: comparisons of methods, crossed seams, hardness, metrics, requests."""
