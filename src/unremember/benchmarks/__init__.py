"""Benchmarks: data roles, audits, and how the published table is made of them. One file a benchmark."""
