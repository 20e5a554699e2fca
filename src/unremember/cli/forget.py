"""``forget``: a method, with other parts in its seams, on a model and a benchmark's data."""

from __future__ import annotations

from unremember.cli.options import (
    AllowImportOption,
    BlendOption,
    ConfigOption,
    DataOption,
    KeysArgument,
    MethodOption,
    ModelOption,
    RetainLossOption,
    RunFolderOption,
    SamplingOption,
    SelectionOption,
)


def forget_command(
    out: RunFolderOption,
    model: ModelOption = "",
    data: DataOption = "",
    config: ConfigOption = None,
    method: MethodOption = "",
    blend: BlendOption = "",
    sampling: SamplingOption = "",
    selection: SelectionOption = "",
    retain_loss: RetainLossOption = "",
    allow_import: AllowImportOption = None,
    keys: KeysArgument = None,
) -> None:
    """Forget the role `forget` of a benchmark's data.

    unremember forget -m runs/original -d people --method npo --selection lora -o runs/npo lr=1e-3

    unremember forget -c run.yaml -o runs/npo method.beta=0.2
    """
    from unremember.runs.config import read_config
    from unremember.runs.forget import run_forget

    flags = {
        "model": model,
        "data": data,
        "method": method,
        "blend": blend,
        "sampling": sampling,
        "selection": selection,
        "retain_loss": retain_loss,
    }
    run_forget(read_config(config, flags, keys or [], allow_import or []), out)
