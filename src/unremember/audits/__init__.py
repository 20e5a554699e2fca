"""Audits: what is measured of a model, each beside its controls. One file an audit.

An audit is a frozen dataclass, registered by name, that never runs a model:

* ``wants(split) -> list[Want]`` names what it needs of an artefact (nothing, where the split lacks the roles);
* ``measure(seen, oracles) -> Measurement`` reads the records of one artefact. ``oracles`` (records of models
  retrained without the forget set) are passed to the few audits whose very formula needs them.

Reading the value against its controls is done once for all audits, in ``controls.py``.
"""
