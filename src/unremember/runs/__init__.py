"""Runs: what every command does, as plain functions that return data and print nothing of it."""
