"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[str, typer.Option("--model", "-m", help="Model folder, run folder or hub name.")]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        help="Benchmark that gives the data: people, tofu, muse, wmdp, files … Its parameters are data.…=.",
    ),
]
RunFolderOption = Annotated[
    Path, typer.Option("--out", "-o", help="Run folder. A run that was interrupted there is resumed.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file with the same names as the flags.")
]
AllowImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        help="Package whose parts the YAML file may name as package.module:part; its code runs.",
    ),
]
KeysArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as lr=1e-4 epochs=5 method.beta=0.2"),
]
DataKeysArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="data.…= and template=, and parameters of what is named."),
]
OracleOption = Annotated[
    list[str] | None,
    typer.Option("--oracle", help="Model retrained without the forget set; may be given several times."),
]
OriginalOption = Annotated[str, typer.Option("--original", help="The model before forgetting.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ShowTextOption = Annotated[
    bool,
    typer.Option(
        "--show-text",
        help="Show some questions and what each model says: forgotten text stands in the report.",
    ),
]
MethodOption = Annotated[str, typer.Option("--method", help="See `unremember methods`.")]
BlendOption = Annotated[str, typer.Option("--blend", help="See `unremember blends`.")]
SamplingOption = Annotated[str, typer.Option("--sampling", help="See `unremember samplings`.")]
SelectionOption = Annotated[
    str, typer.Option("--selection", help="Which weights may move; see `unremember selections`.")
]
RetainLossOption = Annotated[
    str,
    typer.Option("--retain-loss", help="Loss of the retain term, such as kl; see `unremember losses`."),
]
