"""Methods: one file a system. ``protocol.py`` says what a method is; ``language/`` has those for texts."""
