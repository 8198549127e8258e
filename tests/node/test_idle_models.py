"""A node whose models nobody asks for: they give their memory back, and come when they are called."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from atmo.config import load
from atmo.gateway.handle import AskRequest
from atmo.node.node import Node
from tests.inference.running import until

IDLE = '[inference]\nidle_unload_s = 0.3\n[[serve]]\nmodel = "atmo-tone"\n'


@pytest.mark.asyncio
async def test_an_idle_model_leaves_memory_stays_offered_and_answers(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(IDLE)
    node = Node(load(file=file))
    await node.start()
    try:
        await node.settled()
        (service,) = node.services.values()
        pid = service.report()["worker_pid"]
        await until(lambda: service.report()["state"] == "unloaded")
        await until(lambda: service.report()["worker_pid"] is None)
        assert not psutil.pid_exists(pid)
        (told,) = node.status()["capabilities"]
        assert "Nobody asked for 0.3 s" in told["detail"]
        assert told["hint"] == "The next request loads it again."
        asked = AskRequest(text="I love it", type="classification", timeout_s=30.0)
        labels = [event["labels"] async for event in node.ask(asked) if event["event"] == "labels"]
        assert labels[0][0][0] == "positive"
    finally:
        await node.stop()
