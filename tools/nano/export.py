"""Write the trained model as GGUF in Q8_0: `python -m tools.nano.export`.

Weights of two dimensions become Q8_0 (blocks of 32 values, one float16 scale each), norms stay float32. The output
layer is the embedding (tied), so the file has no `output.weight`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType

from tools.nano.chat import END, END_OF_TEXT, SPECIAL, TEMPLATE
from tools.nano.model import Nano, Shape
from tools.nano.vocabulary import BUILD, PRE_TOKENIZER

TARGET = Path(__file__).parents[2] / "atmo" / "assets" / "nano" / "atmo-nano.gguf"
DESCRIPTION = (
    "The demonstration model of Atmosphere: about 3 million parameters, trained from scratch on a CPU. It answers "
    "questions about Atmosphere and its field, does small sums and short code. It is not a general assistant."
)


def load(path: Path) -> Nano:
    """The model of a checkpoint, in evaluation mode."""
    kept = torch.load(path, weights_only=True)
    model = Nano(Shape(**kept["shape"]))
    model.load_state_dict(kept["weights"])
    return model.eval()


def write(model: Nano, tokenizer: Path, target: Path) -> None:
    writer = GGUFWriter(target, "llama")
    _about(writer, model)
    _shape(writer, model.shape)
    _vocabulary(writer, json.loads(tokenizer.read_text(encoding="utf-8")))
    for name, weight in model.state_dict().items():
        values = weight.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            packed = gguf.quants.quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _about(writer: GGUFWriter, model: Nano) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("atmo-nano")
    writer.add_basename("atmo-nano")
    writer.add_version("1")
    writer.add_size_label(f"{model.parameters_total() / 1e6:.1f}M")
    writer.add_description(DESCRIPTION)
    writer.add_author("The Atmosphere authors")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_tags(["text-generation", "demonstration"])
    writer.add_uint64("atmo.parameter_count", model.parameters_total())


def _shape(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _vocabulary(writer: GGUFWriter, tokenizer: dict) -> None:  # type: ignore[type-arg]
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    tokens = sorted(ids, key=lambda t: ids[t])
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in SPECIAL else TokenType.NORMAL for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(ids[END_OF_TEXT])
    writer.add_eos_token_id(ids[END])
    writer.add_pad_token_id(ids[END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=TARGET)
    args = parser.parse_args()
    args.target.parent.mkdir(parents=True, exist_ok=True)
    write(load(BUILD / "model.pt"), BUILD / "tokenizer.json", args.target)
    print(f"{args.target.name}: {args.target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
