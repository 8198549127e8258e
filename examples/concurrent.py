"""Several requests at once in an event loop, one of them given up: `python -m examples.concurrent`.

Needs a running node: `atmo node start`.
"""

from __future__ import annotations

import asyncio

from atmo import Client


async def main() -> None:
    client = Client()
    questions = ("What is 2+2?", "What is a token?", "What is Atmosphere?")
    for question, answer in zip(questions, await asyncio.gather(*map(client.ask, questions)), strict=True):
        print(f"{question}\n  {answer}")

    # A task that is cancelled, or a block that is left, is cancelled at the node, too: its slot is free at once.
    async with client.stream("Tell me everything.", temperature=1.5) as stream:
        async for text in stream:
            print(f"It began with {text!r}; that is enough.")
            break


asyncio.run(main())
