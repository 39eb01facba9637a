"""A hub cache with just the configurations and tokenizers that vLLM's scheduler tests name.

The schedulers never run a model: a small made-up configuration of the right architecture serves.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

REVISION = "0" * 40
# What the multimodal processors look for in a prompt; they take the last places of the vocabulary.
MARKS = {
    "<|vision_start|>": 2043,
    "<|vision_end|>": 2044,
    "<|image_pad|>": 2045,
    "<|video_pad|>": 2046,
    "<image>": 2047,
}
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "vocab_size": 2048,
    "torch_dtype": "float16",
}
OPT = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "hidden_size": 128,
    "word_embed_proj_dim": 128,
    "ffn_dim": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
    "vocab_size": 2048,
    "torch_dtype": "float16",
}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **TEXT}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 128,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 1024,
    "vocab_size": 2048,
    "torch_dtype": "float16",
}
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "image_token_index": MARKS["<image>"],
    "image_seq_length": 576,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "text_config": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **TEXT},
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 64,
        "vocab_size": 2048,
    },
}
LLAVA_PROCESSOR = {
    "processor_class": "LlavaProcessor",
    "image_token": "<image>",
    "patch_size": 14,
    "num_additional_image_tokens": 1,
    "vision_feature_select_strategy": "default",
}
CLIP_IMAGES = {
    "image_processor_type": "CLIPImageProcessor",
    "processor_class": "LlavaProcessor",
    "crop_size": {"height": 336, "width": 336},
    "size": {"shortest_edge": 336},
}
QWEN_VL = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    **TEXT,
    "max_position_embeddings": 128000,
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    "image_token_id": MARKS["<|image_pad|>"],
    "video_token_id": MARKS["<|video_pad|>"],
    "vision_start_token_id": MARKS["<|vision_start|>"],
    "vision_end_token_id": MARKS["<|vision_end|>"],
    "vision_config": {
        "model_type": "qwen2_5_vl",
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 128,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "fullatt_block_indexes": [1],
    },
}
QWEN_IMAGES = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "facebook/opt-125m": {"config.json": OPT},
    "facebook/opt-350m": {"config.json": OPT},
    "openai-community/gpt2": {"config.json": GPT2},
    "meta-llama/Llama-3.2-1B": {"config.json": LLAMA},
    "llava-hf/llava-1.5-7b-hf": {
        "config.json": LLAVA,
        "processor_config.json": LLAVA_PROCESSOR,
        "preprocessor_config.json": CLIP_IMAGES,
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "config.json": QWEN_VL,
        "preprocessor_config.json": QWEN_IMAGES,
    },
}


def make_hub(cache: Path, tokenizer: Path) -> None:
    """Fill a hub cache: each model's files above beside the tokenizer of the demo model."""
    words = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    names = {number: mark for mark, number in MARKS.items()}
    for token in words["added_tokens"]:
        token["content"] = names.get(token["id"], token["content"])
    for model, files in MODELS.items():
        folder = cache / f"models--{model.replace('/', '--')}"
        shutil.rmtree(folder, ignore_errors=True)
        snapshot = folder / "snapshots" / REVISION
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(REVISION, encoding="utf-8")
        for name in ("tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(tokenizer / name, snapshot)
        for name, content in {**files, "tokenizer.json": words}.items():
            (snapshot / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
