"""Adapters that PEFT writes, with their base weights and what they compute; and how it reads ours.

python peft_package.py peft_files        (pip install peft transformers)
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import save_file
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ViTConfig,
    ViTForImageClassification,
)

SIZES = {"num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16, "num_labels": 3}
BERT = BertConfig(vocab_size=20, num_hidden_layers=2, max_position_embeddings=12, **SIZES)
VIT = ViTConfig(num_hidden_layers=1, image_size=8, patch_size=4, layer_norm_eps=1e-6, **SIZES)
BASES = {
    "lora": lambda: BertForSequenceClassification(BERT),
    "dora": lambda: BertModel(BERT),
    "vit": lambda: ViTForImageClassification(VIT),
}
CONFIGS = {
    "lora": {
        "task_type": "SEQ_CLS",
        "target_modules": ["query", "value", "intermediate.dense"],
        "rank_pattern": {"intermediate.dense": 3},
        "alpha_pattern": {"layer.1.attention.self.query": 5},
    },
    "dora": {"use_rslora": True, "use_dora": True, "target_modules": "all-linear"},
    "vit": {
        "target_modules": ["projection", "q_proj", "fc1"],
        "modules_to_save": ["classifier"],
    },
}


def inputs_of(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    if name == "vit":
        return {"pixel_values": torch.tensor(rng.normal(size=(4, 3, 8, 8)).astype(np.float32))}
    mask = np.arange(9)[None] < np.array([[9], [5], [7], [1]])
    return {
        "input_ids": torch.tensor(rng.integers(1, 20, (4, 9))),
        "attention_mask": torch.tensor(mask.astype(np.int64)),
    }


def compute(model: Any, name: str) -> np.ndarray:
    """Logits, or what the pooler puts out."""
    with torch.no_grad():
        outputs = model.eval()(**inputs_of(name))
    return (outputs.pooler_output if name == "dora" else outputs.logits).numpy()


def outputs_of(name: str, base: Path, adapter: Path) -> np.ndarray:
    """Of an adapter on base weights, as PEFT reads them."""
    model = BASES[name]()
    model.load_state_dict(load_file(base), strict=False)
    return compute(PeftModel.from_pretrained(model, adapter), name)


def write(folder: Path, name: str) -> None:
    """The adapter, base.safetensors and expected.npz."""
    torch.manual_seed(0)
    base = BASES[name]()
    with torch.no_grad():  # as small as they are, nothing shows
        for value in base.parameters():
            value += 0.3 * torch.randn_like(value)
    arrays = {key: value.numpy().copy() for key, value in base.state_dict().items()}
    tuned = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, **CONFIGS[name]))
    with torch.no_grad():
        for key, value in tuned.named_parameters():
            if "lora_" in key or "modules_to_save" in key:
                value += 0.3 * torch.randn_like(value)
    tuned.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    floats = {key: array for key, array in arrays.items() if array.dtype == np.float32}
    save_file(floats, folder / "base.safetensors")
    given = {key: value.numpy() for key, value in inputs_of(name).items()}
    np.savez(folder / "expected.npz", outputs=compute(tuned, name), **given)


if __name__ == "__main__":
    for each in BASES:
        write(Path(sys.argv[1]) / each, each)
