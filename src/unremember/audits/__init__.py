"""Audits: what is measured of a model, each beside its controls. One file an audit.

An audit (``protocol.py``) never runs a model: it requests observations, and computes its figure from them.
Reading the figure against its controls is done once for all audits (``controls.py``, by the rule of
``verdicts.py``).
"""
