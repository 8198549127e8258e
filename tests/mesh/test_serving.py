"""How an answer travels: the first token at once, quick ones together, nothing beyond what the reader granted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from atmo.generation import Finish, Piece, Task, Turn, joined
from atmo.ids import PeerId
from atmo.mesh import serving
from atmo.mesh.capability import Load
from atmo.mesh.messages import AnyMessage, Ask, Done, Grant, Part
from atmo.mesh.service import Answer, Question
from atmo.mesh.serving import Serving

ME, READER = PeerId(bytes([1]) * 32), PeerId(bytes([2]) * 32)
SONG = "atmo:chat:song"


class Singer:
    """Sings what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.notes: asyncio.Queue[Answer] = asyncio.Queue()

    def sing(self, *texts: str) -> None:
        for text in texts:
            self.notes.put_nowait(Piece(text, (ord(text),)))

    async def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        while True:
            note = await self.notes.get()
            yield note
            if isinstance(note, Finish):
                return

    def load(self) -> Load:
        return Load(SONG, 0, 1, 0, 0.0, 0.0, 0.0, True)


class Stage:
    """A singer, and what a reader has heard."""

    def __init__(self, window: int = 32) -> None:
        self.singer = Singer()
        self.heard: list[AnyMessage] = []
        self.serving = Serving(ME, lambda peer, message: self.heard.append(message))
        self.serving.offer(SONG, self.singer)
        self.question = Ask(bytes(16), 0, SONG, Task((Turn("user", "sing"),)), 60.0, window, ())
        self.serving.ask(READER, self.question)

    @property
    def parts(self) -> list[str]:
        return [message.piece.text for message in self.heard if isinstance(message, Part)]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        self.singer.notes.put_nowait(Finish(reason="stop"))
        await self.until(lambda: bool(self.heard) and isinstance(self.heard[-1], Done))
        numbers = [message.seq for message in self.heard if isinstance(message, Part | Done)]
        assert numbers == list(range(len(numbers)))


@pytest.mark.asyncio
async def test_the_first_token_is_sent_at_once_and_quick_ones_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "GATHER_S", 0.2)
    stage = Stage()
    stage.singer.sing("a")
    await stage.until(lambda: stage.parts == ["a"])

    stage.singer.sing("b", "c", "d")

    await stage.until(lambda: len(stage.parts) == 2)
    assert stage.parts == ["a", "bcd"]
    last = stage.heard[-1]
    assert isinstance(last, Part)
    assert last.piece.token_ids == tuple(b"bcd")
    await stage.end()


@pytest.mark.asyncio
async def test_the_end_brings_what_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "GATHER_S", 1e9)
    stage = Stage()
    stage.singer.sing("a", "b", "c")

    await stage.end()

    assert stage.parts == ["a", "bc"]


@pytest.mark.asyncio
async def test_slow_tokens_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "GATHER_S", 0.0)
    stage = Stage()
    stage.singer.sing("a", "b", "c")
    await stage.end()
    assert stage.parts == ["a", "b", "c"]


@pytest.mark.asyncio
async def test_no_part_grows_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "GATHER_S", 1e9)
    monkeypatch.setattr(serving, "GATHERED_TOKENS", 3)
    stage = Stage()
    stage.singer.sing(*"abcdefgh")
    await stage.end()
    assert stage.parts == ["a", "bcd", "efg", "h"]


@pytest.mark.asyncio
async def test_a_reader_who_grants_nothing_more_gets_nothing_more_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "GATHER_S", 0.005)
    stage = Stage(window=1)
    stage.singer.sing("a")
    await stage.until(lambda: stage.parts == ["a"])
    stage.singer.sing("b", "c")
    await asyncio.sleep(0.05)  # several times what is gathered; on a slow machine "c" waits behind "b"
    assert stage.parts == ["a"]

    stage.serving.grant(READER, Grant(stage.question.id, 0, 8))

    await stage.until(lambda: "".join(stage.parts) == "abc")
    await stage.end()


def test_pieces_are_joined_without_losing_what_was_really_written() -> None:
    whole = joined((Piece("I ", (1,)), Piece("", (2, 3), raw="<call>"), Piece("x", (4,))))
    assert whole == Piece("I x", (1, 2, 3, 4), raw="I <call>x")
    assert joined((Piece("a"),)) == Piece("a")
