"""The terminal: one file a command. Modules here import torch only inside the functions that need it."""
