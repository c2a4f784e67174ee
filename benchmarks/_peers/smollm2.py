"""SmolLM2-135M-Instruct out of its GGUF file: two linear layers and the states that reach them on real text.

The file holds most weights on a 4-bit grid (Q4_1) already; whoever quantizes them again in the same groups finds
that grid and no error. The tied embedding, which is the output layer too, is kept at 8 bits (Q8_0), so it is the
fair one: its first rows, the most frequent tokens, are the layer `smollm2-head`. `smollm2-down` is a Q4_1 layer,
kept to show that bias.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

HEAD_TOKENS = 4096
DOWN = "model.layers.15.mlp.down_proj"

NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""llama.cpp's name of a block's tensor, and transformers'."""


def network(file: Path) -> nn.Module:
    """Return the language model with its weights dequantized to float32."""
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    heads, key_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    config = LlamaConfig(
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=True,
    )
    state = dict(_tensors(reader, gguf, heads=heads, key_heads=key_heads))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


def _tensors(reader: Any, gguf: Any, *, heads: int, key_heads: int) -> Iterator[tuple[str, torch.Tensor]]:
    whole = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for tensor in reader.tensors:
        values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        parts = tensor.name.split(".")
        if parts[0] != "blk":
            yield f"{whole[parts[0]]}.weight", torch.from_numpy(values)
            continue
        if parts[2] in ("attn_q", "attn_k"):
            values = _rotary_halves(values, heads if parts[2] == "attn_q" else key_heads)
        yield f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight", torch.from_numpy(values)


def _rotary_halves(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo llama.cpp's order of rows: the two numbers of a rotation side by side, not half a head apart."""
    rows, columns = weight.shape
    return np.ascontiguousarray(
        weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def layers(file: Path, texts: list[str]) -> tuple[dict[str, tuple[torch.Tensor, np.ndarray[Any, Any]]], float]:
    """Return weight (out, in) and inputs (tokens, in) of both layers, and the loss per token (nats) on the texts."""
    from transformers import AutoTokenizer

    model: Any = network(file)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    seen: dict[str, list[torch.Tensor]] = {"lm_head": [], DOWN: []}
    for name, found in seen.items():
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, found=found: found.append(inputs[0][0]))
    losses = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            losses.append(float(model(input_ids=ids, labels=ids).loss))
    head = model.lm_head.weight.detach()[:HEAD_TOKENS].clone()
    down = model.get_submodule(DOWN).weight.detach().clone()
    inputs = {name: torch.cat(found).numpy() for name, found in seen.items()}
    return {"smollm2-head": (head, inputs["lm_head"]), "smollm2-down": (down, inputs[DOWN])}, float(np.mean(losses))
