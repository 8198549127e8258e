"""The chat format: special tokens, the template in the GGUF, and conversations as token ids.

The format is ChatML, which every runtime knows: `<|im_start|>role`, a new line, the text, `<|im_end|>`, a new line.
A turn ends with `<|im_end|>`, the end-of-sequence token.
"""

from __future__ import annotations

from tokenizers import Tokenizer

from tools.nano.corpus.reader import Message

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, START, END)

TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] | trim) + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def encode(tokenizer: Tokenizer, messages: list[Message]) -> tuple[list[int], list[float]]:
    """Token ids of a conversation, and of each id how much it counts in the loss.

    Only answers and their `<|im_end|>` count: each token 1 / sqrt(length of its answer), so that a long answer counts
    more than a short one, but not by as much as it is longer. Else code would drown the sums.
    """
    ids: list[int] = []
    weights: list[float] = []
    for role, text in messages:
        head = tokenizer.encode(f"{START}{role}\n").ids
        body = tokenizer.encode(f"{text if role == 'assistant' else text.strip()}{END}").ids
        tail = tokenizer.encode("\n").ids
        ids += head + body + tail
        weight = len(body) ** -0.5 if role == "assistant" else 0.0
        weights += [0.0] * len(head) + [weight] * len(body) + [0.0] * len(tail)
    return ids, weights
