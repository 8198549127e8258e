"""Which model would come, and where to: by what fits into the memory there, and what would help where nothing does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atmo.errors import NoRoute
from atmo.inference import gpus
from atmo.inference.engine import ModelSpec
from atmo.inference.engines.memory import Free
from atmo.mesh.capability import Descriptor
from atmo.mesh.constraints import Constraints
from atmo.mesh.query import Query
from atmo.mesh.rows import NodeInfo, Seed, Shape
from atmo.node.plan import Candidate, Place, Plan, make_plan, memory_of, missing, shortage
from tests.mesh.routing_support import capability, direction, peer

GB = 10**9
SPEC = ModelSpec(name="", kind="gguf", path="", slots=1)
SHAPE = Shape(layers=32, width=4096, vocabulary=32_000, context=8192, kv_bytes_per_token=131_072)


def seed(name: str, size_bytes: int, quantisation: str, **more: Any) -> Seed:
    told = Descriptor(
        id=f"atmo:chat:{name}",
        type="chat",
        description=name,
        model=name,
        context=8192,
        quantisation=quantisation,
        **more,
    )
    return Seed(size_bytes, "gguf", told, SHAPE, (), True)


SMALL, LARGE = seed("small", 4 * GB, "Q4_K_M", strength=0.5), seed("large", 14 * GB, "F16", strength=0.6)


def place(name: str, ram: int, vram: int = 0) -> Place:
    info = NodeInfo(name=name, addresses=(), mode="participant", software="-", labels=(("residency", "here"),))
    return Place(peer(name), info, Free(ram, vram))


def plan(*places: Place, model: str = "", here: frozenset[Any] = frozenset()) -> Plan:
    known = [Candidate(each.descriptor.model * 8, each, (peer("office"),), here) for each in (SMALL, LARGE)]
    query = Query(local=peer("asker"), vector=direction("any"), constraints=Constraints(model=model))
    return make_plan(
        query,
        places,
        known,
        lambda told: capability(told.id.rpartition(":")[2], "any", strength=told.strength, model=told.model),
        bps=0.0,
        spec=SPEC,
        now_s=100.0,
        rng=np.random.default_rng(1),
    )


def test_what_does_not_fit_into_memory_is_no_candidate() -> None:
    assert plan(place("ward", 8 * GB)).candidate.seed is SMALL
    assert plan(place("ward", 32 * GB), model="large").candidate.seed is LARGE
    assert plan(place("ward", 8 * GB), place("hall", 32 * GB), model="large").place.info.name == "hall"
    with pytest.raises(NoRoute, match=r"nearest is small, which needs .* GB at ward, where 2.00 GB are free") as caught:
        plan(place("ward", 2 * GB))
    assert "smaller quantisation" in caught.value.hint
    assert " GB there" in caught.value.hint


def test_context_shrinks_before_a_model_is_given_up() -> None:
    roomy, most = memory_of(SMALL, SPEC, Free(64 * GB))
    tight, less = memory_of(SMALL, SPEC, Free(roomy.ram - 1))
    assert less == most // 2
    assert tight.cache == roomy.cache // 2


def test_a_gpu_takes_what_the_machine_has_no_memory_for() -> None:
    needs, _ = memory_of(LARGE, SPEC, Free(4 * GB, 24 * GB))
    assert needs.ram < 2 * GB < 14 * GB < needs.vram < 24 * GB
    assert plan(place("ward", 4 * GB, 24 * GB), model="large").needs == needs
    free = Free(4 * GB, 8 * GB)
    needs, _ = memory_of(LARGE, SPEC, free)
    assert missing(needs, free) == needs.vram - free.vram
    assert "GB of GPU memory at ward, where 8.00 GB are free" in shortage("large", needs, "ward", free)
    none, _ = memory_of(LARGE, ModelSpec(name="", kind="gguf", path="", gpu_layers=0), Free(4 * GB, 24 * GB))
    assert none.vram == 0, "its user wants nothing of it there"


def test_what_is_on_disk_moves_nothing_and_is_expected_sooner() -> None:
    far, near = plan(place("ward", 8 * GB)), plan(place("ward", 8 * GB), here=frozenset([peer("ward")]))
    assert (far.moves_bytes, near.moves_bytes) == (4 * GB, 0)
    assert far.expected_s > 10 * near.expected_s


def test_gpus_are_asked_for_in_a_process_of_their_own_and_only_where_there_may_be_any(tmp_path: Path) -> None:
    assert gpus.look(devices=tmp_path) == gpus.Gpus()
    (tmp_path / "nvidia0").touch()
    assert gpus.look("llama-cpp-python", tmp_path) == gpus.Gpus()
    assert gpus.look("xllamacpp", tmp_path) == gpus.seen(), "what this build of llama.cpp sees"
