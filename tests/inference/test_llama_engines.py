"""The contract of the llama.cpp engines: one suite, run through a real worker process, for each that is installed."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from atmo.errors import ContextOverflow, UsageError
from atmo.generation import Finish, Piece, Prefix, Sampling, Task, Turn
from atmo.inference.supervisor import Supervisor
from tests.inference.gguf_maker import SONG, song, write_parrot
from tests.inference.running import LLAMA_ENGINES, answer, gguf_spec, ids_of, job, running, skip_reason, text_of, until

CYCLE = len(SONG.encode())
NANO = Path(__file__).parents[2] / "atmo" / "assets" / "nano" / "atmo-nano.gguf"


@pytest.fixture(params=LLAMA_ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if reason := skip_reason(name):
        pytest.skip(reason)
    return name


@pytest.fixture
def parrot(tmp_path: Path) -> Path:
    return write_parrot(tmp_path / "parrot.gguf")


@pytest.mark.asyncio
async def test_says_what_the_model_says_and_counts_it(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine)) as supervisor:
        pieces, finish = await answer(supervisor, job(max_tokens=12))
        counted = await supervisor.count_tokens("sing")
    assert text_of(pieces) == song(12)
    assert ids_of(pieces) == list(song(12).encode())
    assert (finish.reason, finish.output_tokens) == ("length", 12)
    assert finish.prompt_tokens > counted == 4, "the chat template adds to the text"
    assert finish.prefill_s > 0
    assert finish.decode_s > 0
    assert supervisor.facts.engine == engine
    assert supervisor.facts.context == 2048
    assert supervisor.facts.vocabulary == 259


@pytest.mark.asyncio
async def test_streams_each_token_as_it_comes(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine)) as supervisor:
        pieces, _ = await answer(supervisor, job(max_tokens=10))
    assert [piece.text for piece in pieces] == list(song(10))


@pytest.mark.asyncio
async def test_stops_where_the_model_ends(engine: str, tmp_path: Path) -> None:
    model = write_parrot(tmp_path / "short.gguf", ends_at="f")
    async with running(gguf_spec(model, engine)) as supervisor:
        pieces, finish = await answer(supervisor, job(max_tokens=0))
    assert text_of(pieces) == "abcdef"
    assert finish.reason == "stop"


@pytest.mark.asyncio
async def test_never_splits_a_character_and_loses_no_token(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine)) as supervisor:
        pieces, finish = await answer(supervisor, job(max_tokens=2 * CYCLE))
    assert text_of(pieces) == SONG * 2
    assert "\ufffd" not in text_of(pieces)
    assert bytes(ids_of(pieces)) == (SONG * 2).encode()
    assert finish.output_tokens == 2 * CYCLE


@pytest.mark.asyncio
async def test_a_character_cut_by_the_length_is_left_out(engine: str, parrot: Path) -> None:
    to_the_middle = SONG.encode().index("😀".encode()) + 2
    async with running(gguf_spec(parrot, engine)) as supervisor:
        pieces, finish = await answer(supervisor, job(max_tokens=to_the_middle))
    assert text_of(pieces) == song(to_the_middle)
    assert finish.output_tokens == to_the_middle


@pytest.mark.asyncio
async def test_a_stop_string_ends_the_answer_and_none_of_it_is_shown(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine)) as supervisor:
        pieces, finish = await answer(supervisor, job(max_tokens=0, stop=("jx", "klm")))
    assert text_of(pieces) == "abcdefghij"
    assert finish.reason == "stop"


@pytest.mark.asyncio
async def test_equal_seeds_give_equal_answers_and_others_do_not(engine: str, tmp_path: Path) -> None:
    model = write_parrot(tmp_path / "unsure.gguf", sharpness=3.0)
    async with running(gguf_spec(model, engine)) as supervisor:

        async def said(seed: int, top_p: float = 1.0) -> str:
            pieces, _ = await answer(supervisor, job(max_tokens=40, temperature=1.0, seed=seed, top_p=top_p))
            return text_of(pieces)

        first, again, other = await said(7), await said(7), await said(8)
        certain = await said(9, top_p=0.01)
    assert first == again
    assert first != other
    assert certain == song(40), "top_p leaves the likeliest token only"


@pytest.mark.asyncio
async def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine, context=256)) as supervisor:
        with pytest.raises(ContextOverflow, match=r"The prompt has 5\d\d tokens, and parrot takes 256"):
            await answer(supervisor, job("x" * 500))
        pieces, _ = await answer(supervisor, job(max_tokens=5))
    assert text_of(pieces) == "abcde", "the engine goes on"


@pytest.mark.asyncio
async def test_an_answer_ends_where_the_context_does(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine, context=256)) as supervisor:
        _, finish = await answer(supervisor, job(max_tokens=0))
    assert finish.reason == "length"
    assert 250 <= finish.prompt_tokens + finish.output_tokens <= 257


@pytest.mark.asyncio
async def test_an_empty_prompt_and_the_wrong_kind_of_work_are_refused(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine)) as supervisor:
        for turns in ((), (Turn("user", " \n"),)):
            with pytest.raises(UsageError, match="prompt is empty"):
                await answer(supervisor, Task(turns=turns))
        with pytest.raises(UsageError, match="makes no embeddings"):
            await supervisor.embed(["a"])
        with pytest.raises(UsageError, match="has no labels"):
            await supervisor.classify("a")


@pytest.mark.asyncio
async def test_answers_several_at_once_and_lets_the_rest_wait_their_turn(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine, slots=2)) as supervisor:
        asked = [asyncio.ensure_future(answer(supervisor, job(f"number {n}", max_tokens=900 + n))) for n in range(5)]
        await until(lambda: supervisor.load().waiting == 3)
        assert supervisor.load().slots_busy == 2
        answers = await asyncio.gather(*asked)
        assert supervisor.load().slots_busy == 0
    for n, (pieces, finish) in enumerate(answers):
        assert text_of(pieces) == song(900 + n)
        assert finish.output_tokens == 900 + n
    assert answers[4][1].queue_s > answers[0][1].queue_s


@pytest.mark.asyncio
async def test_leaving_an_answer_frees_its_slot_within_200_ms(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine, slots=1)) as supervisor:
        await answer(supervisor, job(max_tokens=2))  # the first request pays for warming up
        took_s = min([await _leave_and_ask(supervisor) for _ in range(3)])  # the best: other work disturbs, never helps
    assert took_s < 0.2


async def _leave_and_ask(supervisor: Supervisor) -> float:
    """Seconds from leaving an endless answer to the end of the next, in an engine with one slot."""
    async with aclosing(supervisor.chat(job(max_tokens=0))) as endless:
        await anext(endless)
    left_s = time.monotonic()
    pieces, _ = await answer(supervisor, job("next", max_tokens=1))
    assert text_of(pieces) == "a"
    return time.monotonic() - left_s


@pytest.mark.asyncio
async def test_who_leaves_while_waiting_leaves_no_trace(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine, slots=1)) as supervisor:
        busy = asyncio.ensure_future(answer(supervisor, job(max_tokens=1500)))
        await until(lambda: supervisor.load().slots_busy == 1)
        waiting = asyncio.ensure_future(answer(supervisor, job()))
        await until(lambda: supervisor.load().waiting == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert supervisor.load().waiting == 0
        assert text_of((await busy)[0]) == song(1500)
        assert text_of((await answer(supervisor, job(max_tokens=3)))[0]) == "abc"


@pytest.mark.asyncio
async def test_an_earlier_prompt_is_not_computed_again(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine, slots=2)) as supervisor:
        _, first = await answer(supervisor, job("a long story " * 20, max_tokens=3))
        _, second = await answer(supervisor, job("a long story " * 20, max_tokens=3))
    assert first.cached_tokens == 0
    assert second.cached_tokens > 200


@pytest.mark.asyncio
async def test_the_system_prompt_of_the_model_goes_first_unless_the_request_has_one(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine, system="You are a parrot.")) as supervisor:
        _, own = await answer(supervisor, job("hi", max_tokens=1))
        brought = Task(turns=(Turn("system", "Be."), Turn("user", "hi")), sampling=Sampling(max_tokens=1))
        _, other = await answer(supervisor, brought)
    async with running(gguf_spec(parrot, engine)) as supervisor:
        _, none = await answer(supervisor, job("hi", max_tokens=1))
    assert none.prompt_tokens < other.prompt_tokens < own.prompt_tokens


@pytest.mark.asyncio
@pytest.mark.skipif(not NANO.exists(), reason="atmo-nano is not built")
async def test_the_shipped_model_answers(engine: str) -> None:
    async with running(gguf_spec(NANO, engine)) as supervisor:
        pieces, finish = await answer(supervisor, job("What is 2+2?", max_tokens=40))
    assert text_of(pieces).strip()
    assert finish.output_tokens > 1, "what it says is judged in test_nano_model.py; here, that it speaks"


@pytest.mark.asyncio
async def test_both_engines_give_the_same_answer(parrot: Path) -> None:
    if any(skip_reason(name) for name in LLAMA_ENGINES):
        pytest.skip("only one llama.cpp engine is installed")
    found: list[tuple[str, list[int], Finish]] = []
    for name in LLAMA_ENGINES:
        async with running(gguf_spec(parrot, name)) as supervisor:
            pieces, finish = await answer(supervisor, job("same", max_tokens=50))
        found.append((text_of(pieces), ids_of(pieces), finish))
    (text, ids, finish), (other_text, other_ids, other) = found
    assert (text, ids) == (other_text, other_ids)
    assert (finish.reason, finish.prompt_tokens, finish.output_tokens) == (
        other.reason,
        other.prompt_tokens,
        other.output_tokens,
    )
    assert Piece(text, tuple(ids)).text == song(50)


def begun(task: Task, prefix: Prefix) -> Task:
    return msgspec.structs.replace(task, prefix=prefix)


@pytest.mark.asyncio
async def test_goes_on_behind_tokens_that_another_engine_wrote(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine)) as supervisor:
        whole, finish = await answer(supervisor, job(max_tokens=60))
        for cut in (1, 17, 59):
            prefix = Prefix("", tuple(ids_of(whole)[:cut]), song(cut))
            rest, end = await answer(supervisor, begun(job(max_tokens=60), prefix))
            assert ids_of(rest) == ids_of(whole)[cut:], "max_tokens counts the whole answer"
            assert (end.reason, end.output_tokens) == ("length", 60 - cut)
            assert end.prompt_tokens == finish.prompt_tokens, "what was written is no part of the prompt"


@pytest.mark.asyncio
async def test_goes_on_behind_the_text_of_another_model(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine)) as supervisor:
        rest, _ = await answer(supervisor, begun(job(max_tokens=20), Prefix("", (), song(7))))
    assert song(7) + text_of(rest) == song(20)


@pytest.mark.asyncio
async def test_an_answer_that_was_complete_but_for_its_end_is_not_made_longer(engine: str, tmp_path: Path) -> None:
    model = write_parrot(tmp_path / "short.gguf", ends_at="f")
    async with running(gguf_spec(model, engine)) as supervisor:
        full = Prefix("", tuple(b"abcdef"), "abcdef")
        for task, reason in (
            (job(max_tokens=0), "stop"),
            (job(max_tokens=6), "length"),
            (job(max_tokens=0, stop=("ef",)), "stop"),
        ):
            rest, finish = await answer(supervisor, begun(task, full))
            assert (text_of(rest), finish.reason) == ("", reason)
            assert finish.output_tokens <= 1


@pytest.mark.asyncio
async def test_a_real_model_goes_on_as_it_would_have(engine: str) -> None:
    async with running(gguf_spec(NANO, engine)) as supervisor:
        whole, _ = await answer(supervisor, job("What is Atmosphere?", max_tokens=64))
        ids = ids_of(whole)
        assert len(ids) > 8
        for cut in range(1, len(ids), 5):
            rest, _ = await answer(
                supervisor, begun(job("What is Atmosphere?", max_tokens=64), Prefix("", tuple(ids[:cut])))
            )
            assert ids_of(rest) == ids[cut:]
