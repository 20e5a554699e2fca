"""What ``unremember experiment`` runs: methods at matched forgetting, seams crossed, hardness, metrics, requests."""
