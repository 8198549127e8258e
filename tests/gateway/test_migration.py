"""A model comes for the sake of a request to OpenAI's API: the plan as an error, the agreement, and the wait for it."""

from __future__ import annotations

import http.client as by_hand
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from atmo import receipts
from atmo.client import SyncClient
from atmo.errors import EngineUnavailable, ModelCouldCome
from atmo.models.library import embedded_models
from tests.cluster import eventually
from tests.gateway.support import CHAT, HELLO, Api, http, serving
from tests.node.sites import NOTHING, Site, nano, start_both, two_sites

HI: Any = [{"role": "user", "content": "Hello! Who are you?"}]
YES: Any = {"atmo": {"private": True, "migrate": "yes"}}
COMES: list[Any] = [
    {"event": "plan", "agreed": True},
    {"event": "transfer", "model": "clinic\nchat", "bytes_done": 0, "bytes_total": 2048},
    {"event": "transfer", "model": "clinic\nchat", "bytes_done": 2048, "bytes_total": 2048},
    {"event": "loading", "model": "clinic-chat", "at": "ward"},
]
RECEIPT: Any = {"event": "receipt", "id": "ab" * 16, "receipt": {"transfer": {"bytes_in": 2048}}}


@pytest.fixture
def api(environ: dict[str, str]) -> Iterator[Api]:
    with serving(environ) as running:
        yield running


@pytest.fixture
def sites(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, Site]]:
    with two_sites(Path(environ["ATMO_HOME"]).parent, monkeypatch) as both:
        yield both


def test_a_stream_shows_signs_of_life_while_the_model_comes(api: Api) -> None:
    api.node.plays = [*COMES, *HELLO, RECEIPT]
    raw = http(api, "POST", "/v1/chat/completions", CHAT | {"stream": True}).body
    assert raw.startswith(b": fetching clinic?chat: 0 of 2,048 bytes\n\n")
    with api.client() as client:
        chunks = list(client.chat.completions.create(model="qwen", messages=HI, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there."
    assert (chunks[-1].model_extra or {})["atmo"] == {"came_bytes": 2048, "receipts": ["ab" * 16]}


def test_a_journey_that_fails_is_the_streams_last_event(api: Api) -> None:
    api.node.plays = [*COMES, EngineUnavailable("clinic-chat came and does not load.")]
    with api.client() as client, pytest.raises(openai.APIError, match="does not load"):
        list(client.chat.completions.create(model="qwen", messages=HI, stream=True))
    with api.client() as client, pytest.raises(openai.InternalServerError, match="does not load"):
        client.chat.completions.create(model="qwen", messages=HI)


def test_the_agreement_is_a_hint_in_the_body_or_a_header(api: Api) -> None:
    with api.client() as client:
        client.chat.completions.create(model="qwen", messages=HI, extra_body=YES)
        client.completions.create(
            model="qwen", prompt="Hi", extra_headers={"X-Atmo-Migrate": "yes", "X-Atmo-Private": "1"}
        )
        client.chat.completions.create(model="qwen", messages=HI)
        told = [(wish.private, wish.migrate) for wish in api.node.wishes]
        assert told == [(True, "yes"), (True, "yes"), (False, "")]
        with pytest.raises(openai.BadRequestError, match="ask, yes or no"):
            client.completions.create(model="qwen", prompt="Hi", extra_headers={"X-Atmo-Migrate": "please"})


def test_an_error_tells_the_plan_to_programs_and_is_not_tried_again(api: Api) -> None:
    api.node.plays = [ModelCouldCome("clinic-chat could come.", plan={"moves_bytes": 2048}, hint="Agree.")]
    answer = http(api, "POST", "/v1/chat/completions", CHAT)
    assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
    assert answer.error["plan"] == {"moves_bytes": 2048}
    assert answer.error["message"] == "clinic-chat could come. Agree."


def refused(call: Callable[..., Any], **asked: Any) -> Any:
    """The body of the error."""
    with pytest.raises(openai.InternalServerError) as caught:
        call(**asked, extra_body={"atmo": {"private": True}})
    return caught.value.body


def test_openais_client_hears_the_plan_agrees_and_gets_its_answers(
    sites: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs at the ward. What it is asked privately makes models come from the office, one for each kind."""
    office, hospital = sites
    office.has_model("clinic-chat", nano())
    office.has_model("clinic-vectors", next(each.path for each in embedded_models() if each.name == "atmo-encoder"))
    quota_gb = (nano().stat().st_size + 28e6) / 1e9
    _, ward = start_both(sites, monkeypatch, ward=f"{NOTHING}[models]\nquota_gb = {quota_gb}\n")
    url = ward.status()["node"]["api"]
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        chat, complete, embed = client.chat.completions.create, client.completions.create, client.embeddings.create
        eventually(lambda: "plan" in refused(embed, model="auto", input="Hello"), "both models are known to be had")
        for call, asked, model in (
            (chat, {"model": "auto", "messages": HI}, "clinic-chat"),
            (chat, {"model": "clinic-chat", "messages": HI, "stream": True}, "clinic-chat"),
            (complete, {"model": "auto", "prompt": "Hello"}, "clinic-chat"),
            (embed, {"model": "auto", "input": "Hello"}, "clinic-vectors"),
        ):
            error = refused(call, **asked)
            assert (error["code"], error["plan"]["model"]) == ("no_route", model)
            for word in (f"{model} could come to ward from office", "MB, about", '"migrate": "yes"', "X-Atmo-Migrate"):
                assert word in error["message"]
        assert ward.transfers() == []
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.chat.completions.create(model="clinic-chta", messages=HI)

        assert comes_with_signs_of_life(ward) == nano().stat().st_size
        whole = chat(model="auto", messages=HI, extra_body=YES)
        assert whole.choices[0].message.content
        (made,) = (whole.model_extra or {})["atmo"]["receipts"]
        assert complete(model="auto", prompt="Hello", max_tokens=4).choices[0].text
        vectors = embed(model="auto", input=["Hello", "Goodbye"], extra_body=YES)
        assert [len(each.embedding) for each in vectors.data] == [384, 384]
        proof = (vectors.model_extra or {})["atmo"]
    (served,) = ward.status()["capabilities"]
    assert served["id"] == "atmo:embedding:clinic-vectors", "the quota has room for one, and the other made way"
    assert proof["came_bytes"] > 20_000_000
    for receipt in (made, *proof["receipts"]):
        assert receipts.problems(receipts.read(receipts.find(receipt, hospital.folder / "home"))) == []


def comes_with_signs_of_life(ward: SyncClient) -> int:
    """Ask for a stream by hand: comments come before the first word. The bytes that came."""
    address = ward.status()["node"]["api"].removeprefix("http://").removesuffix("/v1")
    connection = by_hand.HTTPConnection(address, timeout=60)
    body = json.dumps({"model": "auto", "messages": HI, "stream": True, **YES})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    lines = connection.getresponse().read().decode().split("\n\n")
    connection.close()
    assert lines[0].startswith(": fetching clinic-chat")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2] if line.startswith("data: ")]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    return int(chunks[-1]["atmo"]["came_bytes"])
