"""Write the page on model families: `python docs/make_families.py`.

Every row is computed with a tiny model of the family, whose weights are drawn at random.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "docs")]

from make_table import markdown_table  # noqa: E402

from conftest import TEXTS  # noqa: E402
from families import FAMILIES, TITLES, examine  # noqa: E402
from unremember.tasks.tokenizers import train_tokenizer  # noqa: E402

PAGE = """# Model families

Any causal language model of transformers can be trained, scored and attacked. Architectures differ in what
they allow, so each model is probed once, with a few tokens, when it is loaded or first scored. Where a faster
way gives other states than the plain one, the plain one is taken. The table shows what came of it, and what
was compared with plain forwards of single texts without a cache:

- **scores**: the log-probability of every answer token, to 1e-5.
- **a prompt's answers**: whether several answers share the computation of their prompt.
- **gradients**: those of a training step, in every weight, to 1e-5 of the largest.
- **a step's rows**: whether the rows of a step lie end to end, without padding.
- **greedy text**: the text of `generate(do_sample=False)`.
- **decoding**: drafted by the true answer and by earlier models, or done by the library.
- **LoRA**: whether adapters train and merge.

Each row is a model of two blocks (a few need three) and of random weights. `python docs/make_families.py`
computes the table anew.

{table}

These are refused, in one line, when the model is loaded:

{refused}

## Other forms of weights

| form | what happens |
| --- | --- |
| a folder of adapters (peft) | the base model that it names is loaded, and the adapters are merged |
| a GGUF file, alone in its folder | it is dequantised, and saved as safetensors (extra `gguf`) |
| pickles (`.bin`, `.pt`) | refused: loading them can run code; the message says how to convert them |
"""


def main() -> None:
    """Examine every family and write the page."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    rows = [list(examine(name, tokenizer)) for name in FAMILIES]
    page = PAGE.format(
        table=markdown_table(list(TITLES), [row for row in rows if len(row) == len(TITLES)]),
        refused=markdown_table(["family", "why"], [row for row in rows if len(row) == 2]),
    )
    (ROOT / "docs" / "families.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
