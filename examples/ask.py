"""Ask, and get the answer whole, as it is written, and as a conversation: `python -m examples.ask`.

Needs a running node: `atmo node start`.
"""

from __future__ import annotations

from atmo import SyncClient

client = SyncClient()

# The whole answer, and who gave it how fast.
answer = client.ask("What is Atmosphere?", timeout_s=30)
print(
    f"{answer}\n  by {answer.node} with {answer.capability}, {answer.output_tokens} tokens in {answer.total_s:.2f} s\n"
)

# As it is written. Leaving the block stops the model, if it has not come to its end.
with client.stream("What is a token?", temperature=0, max_tokens=60) as stream:
    for text in stream:
        print(text, end="", flush=True)
print(f"\n  finished: {stream.so_far.finish}\n")

# A conversation: each answer is the next turn of it.
talk = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Hello, who are you?"}]
for question in ("What is 2+2?", ""):
    answer = client.chat(talk)
    print(f"{talk[-1]['content']}\n  {answer}")
    talk += [answer.message, {"role": "user", "content": question}]
