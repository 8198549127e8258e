"""A node in a process of its own: prints its address, `up` and `down` as they happen, and echoes control frames.

Started by `support.Child` with one JSON argument: the mesh root's secret, LinkTiming fields, and an address to dial.
The control frame STALL makes its event loop do nothing at all for a while.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from atmo.ids import MeshId, parse_multiaddr
from atmo.keys import Identity
from atmo.transport.base import Lane, LinkDown, LinkUp, Received, TransportEvent
from atmo.transport.link import LinkTiming
from atmo.transport.zeromq import ZmqTransport
from tests.transport.support import enrol

STALL, STALL_S = b"stall", 2.5


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


async def main(options: dict[str, Any]) -> None:
    root = Identity(bytes.fromhex(options["root"]))
    member = enrol(root)
    transport = ZmqTransport(
        member.identity.public,
        member.curve,
        member.credential,
        MeshId(root.public),
        timing=LinkTiming(**options["timing"]),
    )

    def hear(events: Sequence[TransportEvent]) -> None:
        for event in events:
            if isinstance(event, LinkUp):
                say(event="up")
            elif isinstance(event, LinkDown):
                say(event="down", reason=event.reason)
            elif isinstance(event, Received) and event.frame == STALL:
                time.sleep(STALL_S)  # the loop is stuck; the IO thread is not
            elif isinstance(event, Received) and event.lane is Lane.CONTROL:
                transport.send(event.peer, bytes(event.frame))

    await transport.start(hear)
    say(event="address", address=str(transport.address))
    if options["dial"]:
        transport.dial(parse_multiaddr(options["dial"]))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent closes the pipe
    await transport.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
