"""Methods for language models.

Each is a function of its hyperparameters that returns a ``unremember.engine.recipe.Recipe``: the terms,
and defaults for the other seams that a run may override.
"""
