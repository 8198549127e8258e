"""A model that sees: the real engine, with a projector beside the model, looks at real pictures."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from atmo.errors import UsageError
from atmo.generation import Form, Prefix, Sampling, Task, Turn
from atmo.inference.supervisor import Supervisor
from tests.inference.gguf_maker import png, song, write_eye, write_parrot
from tests.inference.running import answer, gguf_spec, running, skip_reason, text_of

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(bool(skip_reason("xllamacpp")), reason="only xllamacpp takes a projector"),
]
RED, BLUE = png((255, 0, 0)), png((0, 0, 255))


async def says(model: Supervisor, *images: bytes, prefix: Prefix = Prefix()) -> str:  # noqa: B008
    turns = (Turn("user", "Which colour is this?", images),)
    pieces, _ = await answer(model, Task(turns, Sampling(max_tokens=3, temperature=0.0), prefix=prefix))
    return text_of(pieces)


async def test_what_is_in_the_picture_decides_the_answer(tmp_path: Path) -> None:
    model = write_parrot(tmp_path / "m.gguf", sees=True)
    eye = write_eye(tmp_path / "mmproj-m.gguf")
    async with running(msgspec.structs.replace(gguf_spec(model, "xllamacpp"), projector=str(eye))) as parrot:
        assert [await says(parrot, RED), await says(parrot, BLUE)] == ["rrr", "bbb"]
        assert await says(parrot) == song(3), "without a picture it is the model that it was"
        assert await says(parrot, BLUE, prefix=Prefix(token_ids=tuple(b"b"))) == "bb", "begun by another engine"
        with pytest.raises(UsageError, match="refused the request"):
            await says(parrot, b"\x89PNG\r\n\x1a\n, and nothing behind it")
        unsure = Task((Turn("user", "Sure?", (RED,)),), Sampling(max_tokens=3), form=Form(logprobs=1))
        with pytest.raises(UsageError, match="no probabilities about images"):
            await answer(parrot, unsure)
        assert await says(parrot, RED) == "rrr", "none of that has hurt it"


async def test_a_template_that_ends_in_the_picture_does_not_end_the_engine(tmp_path: Path) -> None:
    bare = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    model = write_parrot(tmp_path / "m.gguf", sees=True, template=bare)
    eye = write_eye(tmp_path / "mmproj-m.gguf")
    async with running(msgspec.structs.replace(gguf_spec(model, "xllamacpp"), projector=str(eye))) as parrot:
        assert await says(parrot, RED) == "rrr"
