"""Methods: one file a system. A gradient method picks one part of each seam; others work on the model directly."""
