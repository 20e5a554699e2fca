"""What is known before training: what is missing, and how hard, hostile and costly a request is."""
