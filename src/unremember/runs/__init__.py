"""Runs: what every command does, as plain functions that return data. ``cli/`` parses, calls one of them, and prints."""
