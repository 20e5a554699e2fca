"""Loading refuses what it should in one line; saving leaves a whole model whenever the process dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from unremember.errors import ModelError, RunError
from unremember.models import load
from unremember.models.digest import weights_digest
from unremember.models.load import load_model, save_model
from unremember.models.presets import small_llama
from unremember.tasks.tokenizers import load_tokenizer

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Any, tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(tiny_llama, tokenizer, folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of a saved model that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub cannot be reached, as on a machine without a network."""
    import huggingface_hub.utils._http as http

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("Name or service not known")

    monkeypatch.setattr(http.get_session(), "send", refuse)


def test_what_was_saved_is_loaded(whole: Path, tiny_llama: Any, tokenizer: Any) -> None:
    ids = torch.tensor([[5, 9, 20, 41]])
    model = load_model(whole)
    assert not model.training and torch.equal(model(ids).logits, tiny_llama(ids).logits)
    assert (
        load_tokenizer(whole)("Ida sells bread.")["input_ids"] == tokenizer("Ida sells bread.")["input_ids"]
    )
    assert load_model(whole, dtype=torch.bfloat16).dtype == torch.bfloat16
    plain = AutoModelForCausalLM.from_pretrained(whole).eval()
    assert torch.equal(plain(ids).logits, tiny_llama(ids).logits) and len(
        AutoTokenizer.from_pretrained(whole)
    ) == len(tokenizer)


@pytest.mark.parametrize("read", [load_model, load_tokenizer])
@pytest.mark.parametrize("name", ["./runs/none", "/nowhere/at/all", "~/models/none", "runs/demo/none"])
def test_a_missing_folder_is_named(read: Any, name: str) -> None:
    with pytest.raises(ModelError, match=rf"^no model folder {name}$"):
        read(name)


@pytest.mark.parametrize("read", [load_model, load_tokenizer])
@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model"])
@pytest.mark.usefixtures("offline")
def test_an_unknown_hub_name_without_a_network_is_one_line_at_once(
    read: Any, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ModelError, match=f"^no model folder {name}, and no model of this name on the hub.*not known"
    ) as error:
        read(name)
    assert "\n" not in str(error.value) and "".join(capfd.readouterr()) == "", "no retries, no notices"


def test_a_hub_model_of_pickles_is_refused_before_any_download(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    listed = huggingface_hub.hf_api.ModelInfo(
        id="a/b", siblings=[{"rfilename": "config.json"}, {"rfilename": "pytorch_model.bin"}]
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: listed)
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("it was loaded")
    )
    with pytest.raises(ModelError, match=r"a/b holds its weights as a pickle \(pytorch_model.bin\)"):
        load_model("a/b")
    with pytest.raises(ModelError, match="a/b has no tokenizer"):
        load_tokenizer("a/b")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.ckpt"])
def test_pickles_are_refused_unread_with_the_way_to_convert(folder: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(
        ModelError, match=rf"pickle \({name}\).*from_pretrained\(\.\.\.\)\.save_pretrained\(folder\)"
    ):
        load_model(folder)
    assert not Path("owned").exists()


def test_the_stated_conversion_works(folder: Path, tiny_llama: Any, tokenizer: Any) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(tiny_llama.state_dict(), folder / "pytorch_model.bin")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)
    assert weights_digest(load_model(folder)) == weights_digest(tiny_llama)


def test_an_empty_folder_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no \.safetensors weights \(its files: none\)"):
        load_model(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"its files: notes\.txt"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match=r"notes\.txt is a file: give the folder"):
        load_model(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "spoil", [lambda raw: raw[: len(raw) // 2], lambda raw: b"no tensors", lambda raw: b""]
)
def test_corrupt_weights_are_one_line(folder: Path, spoil: Any) -> None:
    (folder / WEIGHTS).write_bytes(spoil((folder / WEIGHTS).read_bytes()))
    with pytest.raises(ModelError, match=f"^cannot load a model from {folder}: SafetensorError: ") as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_there_are_not_made_up(folder: Path) -> None:
    tensors = {
        name: tensor for name, tensor in load_file(folder / WEIGHTS).items() if "layers.1.mlp" not in name
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(
        ModelError,
        match=r"lacks 3 of the model's weights \(first: model\.layers\.1\.mlp\.down_proj\.weight\)",
    ):
        load_model(folder)


def test_weights_of_another_shape_and_no_config_are_refused(folder: Path) -> None:
    tensors = {n: t[:-1] if n == "model.norm.weight" else t for n, t in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"cannot load a model from {folder}"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=f"cannot load a model from {folder}"):
        load_model(folder)


def test_a_model_without_tokenizer_says_what_to_put_there(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=f"cannot load the tokenizer of {folder}"):
        load_tokenizer(folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(
        ModelError, match=r"has no tokenizer: put its tokenizer\.json and tokenizer_config\.json"
    ):
        load_tokenizer(folder)


# Adapters and GGUF


@pytest.fixture
def adapters(tmp_path: Path, whole: Path) -> Path:
    """A folder of adapters that move the model, beside no tokenizer."""
    adapted = get_peft_model(load_model(whole), LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
    adapted.save_pretrained(tmp_path / "adapters")
    return tmp_path / "adapters"


def test_adapters_are_merged_into_the_model_that_they_name(
    adapters: Path, whole: Path, tokenizer: Any, tmp_path: Path
) -> None:
    ids = torch.tensor([[5, 9, 20, 41]])
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(whole), adapters).eval()(ids)
    model = load_model(adapters)
    assert (model(ids).logits - expected.logits).abs().max() < 1e-5
    assert (model(ids).logits - load_model(whole)(ids).logits).abs().max() > 1e-3
    assert not hasattr(model, "peft_config") and len(load_tokenizer(adapters)) == len(tokenizer)
    save_model(model, tokenizer, tmp_path / "merged")
    assert weights_digest(load_model(tmp_path / "merged")) == weights_digest(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model_name_or_path": None}, "does not say what its adapters adapt"),
        ({"base_model_name_or_path": "/nowhere"}, "a model that does not load: no model folder /nowhere"),
        ({"r": 3}, "cannot be merged into"),
        ({"target_modules": ["no_such"]}, "cannot be merged into"),
        ({"target_modules": ["q_proj"], "r": 2, "layers_to_transform": [5]}, "cannot be merged into"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}, "cannot"),
    ],
)
def test_adapters_that_cannot_be_merged_are_one_line(
    adapters: Path, change: dict[str, Any], message: str
) -> None:
    config = json.loads((adapters / "adapter_config.json").read_text())
    (adapters / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=message) as error:
        load_model(adapters)
    assert "\n" not in str(error.value)


def test_adapters_without_some_of_their_weights_are_refused(adapters: Path) -> None:
    file = adapters / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(min(tensors))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="missing adapter keys"):
        load_model(adapters)
    file.rename(adapters / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"pickle \(adapter_model\.bin\)"):
        load_model(adapters)


def write_gguf(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write a Llama in the format of llama.cpp, its matrices with eight bits."""
    gguf = pytest.importorskip("gguf")
    config, words = model.config, tokenizer.get_vocab()
    folder.mkdir()
    file = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_vocab_size(len(words))
    file.add_tokenizer_model("gpt2")
    file.add_token_list(sorted(words, key=words.__getitem__))
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    file.add_token_merges([" ".join(pair) for pair in merges])
    file.add_bos_token_id(0)
    file.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.model.state_dict(prefix="model.").items():
        values = weight.numpy()
        if "q_proj" in name or "k_proj" in name:  # the halves of rotated pairs lie side by side there
            halves = values.reshape(config.num_attention_heads, 2, -1, values.shape[1])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        eight_bits = weight.dim() == 2 and weight.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if eight_bits else gguf.GGMLQuantizationType.F32
        file.add_tensor(names.get_name(name, (".weight",)), gguf.quantize(values, kind), raw_dtype=kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def test_a_gguf_file_is_loaded_and_saved_as_safetensors(tmp_path: Path, tokenizer: Any) -> None:
    original = small_llama(len(tokenizer), hidden=32, layers=2, heads=2, context=128).eval()
    write_gguf(tmp_path / "gguf", original, tokenizer)
    ids = torch.tensor([[5, 9, 20, 41]])
    model, words = load_model(tmp_path / "gguf"), load_tokenizer(tmp_path / "gguf")
    assert (model(ids).logits - original(ids).logits).abs().max() < 0.1 * original(ids).logits.std()
    assert words("Ida sells bread.")["input_ids"] == tokenizer("Ida sells bread.")["input_ids"]
    save_model(model, words, tmp_path / "saved")
    saved = load_model(tmp_path / "saved")
    assert weights_digest(saved) == weights_digest(model)
    assert not hasattr(saved.config, "quantization_config")
    shutil.copy(tmp_path / "gguf" / "tiny.gguf", tmp_path / "gguf" / "second.gguf")
    with pytest.raises(
        ModelError, match=r"holds 2 GGUF files: keep the one to load \(second\.gguf, tiny\.gguf\)"
    ):
        load_model(tmp_path / "gguf")


def test_a_gguf_file_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'unremember\[gguf\]'"):
        load_model(tmp_path)


def killed_save(folder: Path, moment: str, tokenizer: Any) -> None:
    """Save a model in a process that dies in the weights, before the tokenizer or at the n-th rename."""

    def child() -> None:
        model = small_llama(300, hidden=32, layers=2, heads=2, seed=7)
        write, rename, renames = model.save_pretrained, os.replace, []

        def die(path: Path, **options: Any) -> None:
            write(path, **options)
            (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)

        def replace(source: Path, target: Path) -> None:
            renames.append(target)
            rename(source, target) if len(renames) < int(moment) else os.kill(os.getpid(), signal.SIGKILL)

        if moment == "weights":
            model.save_pretrained = die
        elif moment == "tokenizer":
            type(tokenizer).save_pretrained = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        else:
            load.os.replace = replace
        save_model(model, tokenizer, folder)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["weights", "tokenizer", "1", "2"])
def test_a_killed_save_loses_nothing(folder: Path, moment: str, tiny_llama: Any, tokenizer: Any) -> None:
    killed_save(folder, moment, tokenizer)
    survivor = folder.with_name("model.old") if moment == "2" else folder
    assert weights_digest(load_model(survivor)) == weights_digest(tiny_llama), "the old model is whole"
    assert len(load_tokenizer(survivor)) == len(tokenizer)


@pytest.mark.parametrize("moment", ["weights", "2"])
def test_the_next_save_clears_what_a_killed_one_left(folder: Path, moment: str, tokenizer: Any) -> None:
    killed_save(folder, moment, tokenizer)
    new = small_llama(len(tokenizer), hidden=32, layers=2, heads=2, seed=3)
    save_model(new, tokenizer, folder)
    assert weights_digest(load_model(folder)) == weights_digest(new)
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_save_that_fails_after_a_kill_between_the_renames_has_the_old_model_back(
    folder: Path, tiny_llama: Any, tokenizer: Any
) -> None:
    killed_save(folder, "2", tokenizer)
    with pytest.raises(RunError):
        save_model(tiny_llama, Full(), folder)
    assert weights_digest(load_model(folder)) == weights_digest(tiny_llama)


class Full:
    """A tokenizer that is written to a full disk."""

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")


def test_a_failing_write_keeps_the_old_model_and_says_what_to_do(folder: Path, tiny_llama: Any) -> None:
    with pytest.raises(
        RunError,
        match=r"cannot save the model to .*No space left on device; \d+ MB free\): "
        r"make room and run the same command",
    ):
        save_model(small_llama(300, hidden=32, layers=2, heads=2, seed=5), Full(), folder)
    assert weights_digest(load_model(folder)) == weights_digest(tiny_llama)


def test_a_programming_error_is_not_dressed_as_a_full_disk(
    folder: Path, tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load.shutil, "rmtree", lambda *_, **__: {}["missing"])
    with pytest.raises(KeyError):
        save_model(tiny_llama, None, folder)


# --- what a folder of others holds ---

RUN_ME = "from pathlib import Path\nPath('ran').touch()\nfrom transformers import LlamaConfig as Strange\n"


@pytest.mark.parametrize("known", [True, False], ids=["known architecture", "its own"])
def test_a_folder_runs_no_code_unless_the_user_says_so(
    known: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked: a "y" that waits on standard input changes nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    (folder / "strange.py").write_text(RUN_ME)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "strange.Strange"}
    (folder / "config.json").write_text(json.dumps(config if known else {**config, "model_type": "strange"}))
    if known:
        load_model(folder)
    else:
        with pytest.raises(ModelError, match="UNREMEMBER_REMOTE_CODE=1"):
            load_model(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_configuration_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(
        ModelError, match=r"a model of \d+ tensors, and the weights hold 9 more \(first: model"
    ):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_neither_loaded_nor_saved(
    value: float, folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    model = load_model(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
    with pytest.raises(ModelError, match=r"not finite \(first: model.layers.1.mlp.up_proj.weight\)"):
        save_model(model, tokenizer, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"not finite \(first: model.layers.1.mlp.up_proj.weight\)"):
        load_model(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            {"weight_map": {"w": "../model/model.safetensors"}},
            "'../model/model.safetensors', outside its folder",
        ),
        ({"weight_map": {"w": "/etc/passwd"}}, "'/etc/passwd', outside its folder"),
        ({"weight_map": {"w": 3}}, "is no index of weights"),
        ({"weights": {}}, "is no index of weights"),
    ],
)
def test_an_index_of_weights_names_files_beside_it(folder: Path, index: dict[str, Any], message: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_weights_in_shards_are_loaded(folder: Path, tiny_llama: Any) -> None:
    (folder / WEIGHTS).unlink()
    tiny_llama.save_pretrained(folder, max_shard_size="40KB")
    assert (folder / "model.safetensors.index.json").is_file()
    assert weights_digest(load_model(folder)) == weights_digest(tiny_llama)
