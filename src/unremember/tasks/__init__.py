"""Tasks: one file a modality. A task turns rows into forwards and says what can be read of them.

Nothing outside this folder names a tokenizer or a pixel: everything else works on the protocol
(``protocol.py``) and on artefacts (``artefact.py``), a model together with its task.
"""
