"""The terminal: one file a command. A command parses its words, calls one function of ``runs/``, and prints.

Modules here import torch, numpy and the runs only inside the functions that need them, so that help is quick.
"""
