"""What is looked at before any training: the request itself."""
