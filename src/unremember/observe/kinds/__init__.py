"""Kinds of observations: frozen dataclasses, registered by name. One file a kind."""
