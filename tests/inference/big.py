"""A GGUF of any size whose weights mean nothing, for tests of memory."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.inference.gguf_maker import SPECIAL, add_vocabulary


def write_idle(path: Path, width: int, layers: int, context: int) -> Path:
    """A llama of `layers` blocks with vectors of `width` numbers, 16 heads and weights of half precision."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("idle")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(width * 4)
    writer.add_head_count(16)
    writer.add_head_count_kv(16)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 16)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    add_vocabulary(writer)
    vocabulary = 256 + len(SPECIAL)
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape, np.float32) * 0.02).astype(np.float16)

    writer.add_tensor("token_embd.weight", weights(vocabulary, width))
    for block in range(layers):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"blk.{block}.{part}.weight", weights(width, width))
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{part}.weight", np.ones(width, np.float32))
        for part in ("ffn_gate", "ffn_up"):
            writer.add_tensor(f"blk.{block}.{part}.weight", weights(width * 4, width))
        writer.add_tensor(f"blk.{block}.ffn_down.weight", weights(width, width * 4))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", weights(vocabulary, width))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
