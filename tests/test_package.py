"""The package as it is shipped: its version, its data files, its command, its layers."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import unremember as un
from unremember import __main__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_and_the_command() -> None:
    assert un.__version__ == PROJECT["project"]["version"] == importlib.metadata.version("unremember")
    (point,) = (p for p in importlib.metadata.entry_points(group="console_scripts") if p.name == "unremember")
    assert point.load() is __main__.start


def test_the_python_face_is_lazy_and_whole() -> None:
    code = (
        "import sys, unremember as un; assert 'torch' not in sys.modules; "
        "print(un.forget.__module__, un.audit.__module__, un.train.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["unremember.api"] * 3
    with pytest.raises(AttributeError, match="forgte"):
        un.forgte  # noqa: B018


def test_every_data_file_is_shipped() -> None:
    """Whatever lies beside the code and is no code is named in package-data."""
    package = Path(str(resources.files("unremember")))
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["unremember"]
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    lying = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "py.typed"
    }
    assert lying <= shipped and package / "report" / "report.html" in shipped


def test_files_are_short_and_say_what_they_are() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400 and text.startswith(('"""', 'r"""')), path
        assert path.name != "utils.py"


def test_the_requirements_are_those_that_are_imported() -> None:
    """Every library that is imported is required by pyproject, there or in an extra, or comes with one that
    is."""
    extras = PROJECT["project"]["optional-dependencies"]
    named = [
        *PROJECT["project"]["dependencies"],
        *(name for extra in extras.keys() - {"dev", "docs"} for name in extras[extra]),
    ]
    required = {name.split(">=")[0].lower().replace("_", "-") for name in named}
    known = {
        "lm_eval": "lm-eval",
        "yaml": "pyyaml",
        "sklearn": "scikit-learn",
        "vl_convert": "vl-convert-python",
        "rouge_score": "rouge-score",
    }
    carried = {
        "pandas": "datasets",
        "tokenizers": "transformers",
        "huggingface_hub": "transformers",
        "joblib": "scikit-learn",
    }
    for path in (ROOT / "src").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"unremember"}:
            assert carried.get(top, known.get(top, top)) in required, (path, top)
