"""Benchmarks: their data roles, their audits, and how published tables are computed. One file for each."""
