"""Methods: one file a system. ``protocol.py`` says what a method is; language/ holds those for language models."""
