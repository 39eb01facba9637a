"""Make a tiny Llama model, its tokenizer and a LoRA adapter, so that vLLM runs without a hub.

The weights are random but seeded: the same files every time, and answers without meaning.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / ".models"
VOCABULARY = 2048
SPARE = 8  # Places left at the end of the vocabulary, for tests that need tokens of their own.
HIDDEN = 128
LAYERS = 2
DEEP_LAYERS = 20
WIDE_HIDDEN, WIDE_LAYERS = 512, 8
CONTEXT = 16384
HEADS = 4
RANK = 8
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(folder: Path) -> None:
    """Train a byte-level BPE tokenizer on Python's own help texts and save it."""
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - SPARE,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(topics.values(), trainer)
    tokenizer.add_special_tokens([f"<|spare_{n}|>" for n in range(SPARE)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        model_max_length=CONTEXT,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def make_model(folder: Path, layers: int = LAYERS, hidden: int = HIDDEN) -> None:
    """Save a Llama of so many layers and of that hidden size with random weights, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder)


def make_lora(folder: Path, base: Path) -> None:
    """Save a random LoRA adapter of the attention's query and value projections, in PEFT's form."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(1)
    weights: dict[str, Any] = {}
    for layer in range(LAYERS):
        for name in ("q_proj", "v_proj"):
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{key}.lora_A.weight"] = torch.randn(RANK, HIDDEN, generator=generator)
            weights[f"{key}.lora_B.weight"] = torch.randn(HIDDEN, RANK, generator=generator)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def make(models: Path = MODELS) -> tuple[Path, Path]:
    """Return the folders of the model and of the adapter, making what is missing."""
    model, lora = models / "tiny", models / "tiny-lora"
    if not model.exists():
        with_partial(model, make_model)
    if not lora.exists():
        with_partial(lora, lambda folder: make_lora(folder, model))
    return model, lora


def make_deep(models: Path = MODELS) -> Path:
    """Return the folder of a model with more layers, making it if it is missing.

    The steps of the tiny one are so quick that the API server, busy with their outputs, answers
    nothing else for seconds; with these it keeps up, and a queue can be watched as it grows.
    """
    deep = models / "tiny-deep"
    if not deep.exists():
        with_partial(deep, lambda folder: make_model(folder, DEEP_LAYERS))
    return deep


def make_wide(models: Path = MODELS) -> Path:
    """Return the folder of a model whose prefill is what its first tokens wait for, making it if it is missing."""
    wide = models / "tiny-wide"
    if not wide.exists():
        with_partial(wide, lambda folder: make_model(folder, WIDE_LAYERS, WIDE_HIDDEN))
    return wide


def with_partial(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder that appears under its name only when it is whole."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    partial.rename(folder)


def main() -> None:
    """Make the model and the adapter, and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder to make them in")
    parser.add_argument("--deep", action="store_true", help="make the one of tests and benchmarks, too")
    parser.add_argument("--wide", action="store_true", help="make the one of the session scenarios, too")
    arguments = parser.parse_args()
    for folder in make(arguments.models):
        print(f"Demo model: {folder}")
    if arguments.deep:
        print(f"Deep model: {make_deep(arguments.models)}")
    if arguments.wide:
        print(f"Wide model: {make_wide(arguments.models)}")


if __name__ == "__main__":
    main()
