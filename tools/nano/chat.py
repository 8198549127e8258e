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


def encode(tokenizer: Tokenizer, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and for each id whether it is learned: the answers and their `<|im_end|>`."""
    ids: list[int] = []
    learned: list[bool] = []
    for role, text in messages:
        head = tokenizer.encode(f"{START}{role}\n").ids
        body = tokenizer.encode(f"{text if role == 'assistant' else text.strip()}{END}").ids
        tail = tokenizer.encode("\n").ids
        ids += head + body + tail
        learned += [False] * len(head) + [role == "assistant"] * len(body) + [False] * len(tail)
    return ids, learned
