"""Architectures of transformers as tiny models, and what this package makes of each beside plain forwards."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING

from unremember.data.split import make_split
from unremember.engine import loop
from unremember.engine.losses import ANSWER
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.engine.settings import Settings
from unremember.errors import ModelError
from unremember.models import causal
from unremember.models.presets import fresh_model
from unremember.observe.generating import caches_states, generate
from unremember.observe.scoring import build_questions, score, shares_prompts
from unremember.tasks.language import LanguageTask
from unremember.tasks.text import Texts

WIDTHS = ("hidden_size", "d_model", "n_embd", "word_embed_proj_dim", "embedding_size", "lru_width")
INNERS = ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim")
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
SHAPE = {
    **dict.fromkeys(WIDTHS, 32),
    **dict.fromkeys(INNERS, 48),
    **dict.fromkeys(DEPTHS, 2),
    **dict.fromkeys((*HEADS, "encoder_attention_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **{"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0, "num_key_value_heads": 2, "head_dim": 8},
    **{"num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    **{"state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1},
    **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "v_head_dim": 8},
    **{"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "is_decoder": True, "expand": 2},
}
"""One small shape by all the names that configurations give it."""

MLA = {"qk_rope_head_dim": 8, "head_dim": 8, "num_key_value_heads": 4}
CHANGES: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neo, window 8": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "mistral, window 8": {"sliding_window": 8},
    "gemma2": {"final_logit_softcapping": 2.0},
    "falcon_h1": {"lm_head_multiplier": 0.25, "mamba_d_ssm": 64},
    "granite": {"logits_scaling": 3.0},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu"), MLA),
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "bamba": {"attn_layer_indices": [1]},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "bert, is_decoder false": {"is_decoder": False},
}
"""What some configurations change beside the shape."""


def tiny_config(name: str, vocabulary: int) -> Any:
    """Return the configuration of a small model; the name is the model type, before any comma."""
    kind: Any = CONFIG_MAPPING[name.partition(",")[0]]
    entries, alias = kind().to_dict(), getattr(kind, "attribute_map", {})
    shape = {**SHAPE, "vocab_size": vocabulary}
    known = {alias.get(key, key): value for key, value in shape.items() if key in entries or key in alias}
    return kind(**{**known, **CHANGES.get(name, {})})


def lively_model(name: str, vocabulary: int) -> Any:
    """Return a model whose weights are large enough for every part to matter."""
    model = fresh_model(tiny_config(name, vocabulary), 0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * 0.25 if weight.dim() > 1 else weight + noise * 0.05)
    return model


ROWS = [
    {
        "question": "What does Ann do?",
        "answer": "Ann bakes bread and cakes.",
        "perturbed_answers": ["Ann sells tea.", "Ann bakes boats.", "She is a pilot."],
    },
    {
        "question": "Where was the painter born?",
        "answer": "In Osk.",
        "perturbed_answers": ["In Velin, by the sea."],
    },
]
COLUMNS = ("answer", "perturbed_answers")
END, LIMIT = 0, 8
TITLES = (
    "family",
    "scores",
    "a prompt's answers",
    "gradients",
    "a step's rows",
    "greedy text",
    "decoding",
    "LoRA",
)


def examine(name: str, tokenizer: Any) -> tuple[str, ...]:
    """Return the cells of a family, under ``TITLES``, or its name and why it is refused."""
    model = lively_model(name, len(tokenizer))
    try:
        task = LanguageTask.of(model, tokenizer)
    except ModelError as error:
        return name, str(error)
    split = make_split({"forget": ROWS})
    columns = task.encode(split, "forget", COLUMNS)
    records = score(model, columns, END, quiet=True)
    expected = {column: plain_scores(model, texts) for column, texts in columns.items()}
    size = max(question.size for question in build_questions(columns))
    longest = max(int(texts.lengths.max()) for texts in columns.values())
    texts = columns["answer"]
    spoken = generate(model, texts, records["answer"], END, LIMIT, quiet=True)
    return (
        name,
        equality(all(close(torch.from_numpy(records[c].logprobs), torch.cat(expected[c])) for c in COLUMNS)),
        "share it" if shares_prompts(model, longest, size) else "one by one",
        equality(close(step_gradient(model, task, columns), plain_gradient(model, texts))),
        "end to end" if causal.packs(model, longest) else "padded",
        equality(spoken == plain_texts(model, texts)),
        "drafted" if caches_states(model) else "by the library",
        train_adapters(model, task, split),
    )


def equality(equal: bool) -> str:
    return "equal" if equal else "DIFFERENT"


def close(left: Tensor, right: Tensor) -> bool:
    """Equal to 1e-5 of the largest value."""
    return bool((left - right).abs().max() < 1e-5 * right.abs().max())


def plain_logprobs(model: Any, texts: Texts, i: int) -> Tensor:
    """The log-probabilities of an answer, from the logits of a plain forward of its text alone."""
    ids = torch.from_numpy(texts.ids[texts.offsets[i] : texts.offsets[i + 1]])[None]
    logits = model(input_ids=ids, use_cache=False).logits[0, texts.starts[i] - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, ids[0, texts.starts[i] :, None])[:, 0]


@torch.no_grad()
def plain_scores(model: Any, texts: Texts) -> list[Tensor]:
    return [plain_logprobs(model, texts, i) for i in range(len(texts))]


def flat_gradient(model: Any, loss: Tensor) -> Tensor:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(w).flatten() if g is None else g.flatten() for w, g in zip(weights, gradients)]
    )


def plain_gradient(model: Any, texts: Texts) -> Tensor:
    return flat_gradient(model, torch.cat([plain_logprobs(model, texts, i) for i in range(len(texts))]).sum())


def step_gradient(model: Any, task: LanguageTask, columns: dict[str, Texts]) -> Tensor:
    """The same gradient through the forward that training runs."""
    parts = {"forget": (columns, np.arange(len(ROWS)))}
    views = task.forward(model, parts, {"forget": [ANSWER]})
    return flat_gradient(model, views["forget"].read(ANSWER).values.sum())


def plain_texts(model: Any, texts: Texts) -> list[list[int]]:
    """What ``generate`` says to one prompt at a time."""
    spoken = []
    for i in range(len(texts)):
        prompt = torch.from_numpy(texts.prompt(i))[None]
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=LIMIT
        )
        ids = out[0, prompt.shape[1] :].tolist()
        spoken.append(ids[: ids.index(END)] if END in ids else ids)
    return spoken


def train_adapters(model: Any, task: LanguageTask, split: Any) -> str:
    """Train adapters for a step and merge them; return what came of it."""
    recipe, before = Recipe((Term("forget"),), selection="lora"), copy.deepcopy(model.state_dict())
    try:
        trained = loop.run_recipe(model, task, split, recipe, Settings(max_steps=1, lr=1e-2), quiet=True)
    except ModelError as error:
        return str(error)
    after = trained.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    return "merged" if moved and after.keys() == before.keys() else "NOT MERGED"


QUICK = (
    *("bloom", "cohere2", "falcon", "falcon_h1", "gemma2", "gpt2", "gpt_neo, window 8", "gpt_oss", "granite"),
    *(
        "jamba",
        "llama",
        "llama4_text",
        "mamba",
        "mamba2",
        "mistral, window 8",
        "mixtral",
        "modernbert-decoder",
    ),
    *("mpt", "opt", "phimoe", "qwen3", "qwen3_next", "recurrent_gemma", "roberta", "rwkv", "xglm"),
    *("bert, is_decoder false", "doge", "lfm2", "minicpm3", "prophetnet"),
)
"""At least one family of each kind; the quick tests examine them."""
FAMILIES = sorted(
    {
        *QUICK,
        *(
            "afmoe",
            "apertus",
            "arcee",
            "bamba",
            "bart",
            "bert",
            "bert-generation",
            "big_bird",
            "biogpt",
            "bitnet",
        ),
        *("codegen", "cohere", "ctrl", "deepseek_v2", "deepseek_v3", "diffllama", "ernie4_5", "ernie4_5_moe"),
        *("exaone4", "falcon_mamba", "flex_olmo", "gemma", "gemma3_text", "glm", "glm4", "glm4_moe"),
        *("glm4_moe_lite", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese", "gptj", "granitemoe"),
        *(
            "granitemoehybrid",
            "helium",
            "hunyuan_v1_dense",
            "jetmoe",
            "lfm2",
            "minimax",
            "ministral",
            "mistral",
        ),
        *(
            "nanochat",
            "nemotron",
            "nemotron_h",
            "olmo",
            "olmo2",
            "olmo3",
            "olmo_hybrid",
            "olmoe",
            "openai-gpt",
        ),
        *(
            "persimmon",
            "phi",
            "phi3",
            "qwen2",
            "qwen2_moe",
            "qwen3_5_text",
            "qwen3_moe",
            "rembert",
            "roformer",
        ),
        *(
            "seed_oss",
            "smollm3",
            "solar_open",
            "stablelm",
            "starcoder2",
            "vaultgemma",
            "xlm",
            "xlnet",
            "youtu",
        ),
    }
)
