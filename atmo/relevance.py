"""How well texts find their capability: a file of capabilities, a file of texts, and what routing makes of them.

Every text goes the way of a prompt, through the encoder and the ranking that a node uses; no node has to run. The
answer to a text is the capability that ranks first, or "nothing fits" where even that lies below the threshold.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from atmo.errors import UsageError
from atmo.ids import PeerId
from atmo.mesh.capability import MAX_EXAMPLES, MAX_TEXT_CHARS, Capability, Descriptor
from atmo.mesh.query import Query
from atmo.mesh.ranking import rank
from atmo.mesh.rows import NodeInfo
from atmo.mesh.table import RoutingTable
from atmo.mesh.views import capability_text, views_of

if TYPE_CHECKING:
    from atmo.inference.encoder import Encoder

HERE = PeerId(bytes(32))  # the only node of the table
SHOWN = 3  # capabilities that a miss names
BINS = 10  # of the calibration error, equally wide; usual since Guo et al. 2017, "On Calibration of Modern Networks"
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARS)]
S = TypeVar("S")


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the file of capabilities."""

    id: Annotated[str, Meta(min_length=1, max_length=100)]
    type: Annotated[str, Meta(min_length=1, max_length=64)]
    description: Text
    examples: Annotated[tuple[Text, ...], Meta(max_length=MAX_EXAMPLES)] = ()


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file of texts. expect: ids that are right, empty where nothing fits; hard: made to mislead."""

    text: Annotated[str, Meta(min_length=1)]
    expect: tuple[str, ...]
    hard: bool = False


class Score(msgspec.Struct, frozen=True):
    id: str
    relevance: float
    probability: float


class Answer(msgspec.Struct, frozen=True):
    """chosen: "" for "nothing fits"; probability: that this is right, as calibrated; best: the first few; ms: the
    encoder and the ranking together."""

    intent: Intent
    chosen: str
    probability: float
    best: tuple[Score, ...]
    ms: float

    @property
    def right(self) -> bool:
        return self.chosen in self.intent.expect if self.intent.expect else not self.chosen


class Nothing(msgspec.Struct, frozen=True):
    """How well "nothing fits" is told: n texts that nothing fits; None where a share would be of none."""

    n: int
    recall: float | None
    precision: float | None


class Report(msgspec.Struct, frozen=True):
    """Shares are of 1. calibration_error: the mean distance between the probability that is shown and the share that
    is right, weighted by how many texts lie in each bin."""

    encoder: str
    n: int
    accuracy: float
    hard_n: int
    accuracy_hard: float | None
    nothing_fits: Nothing
    calibration_error: float
    ms: dict[str, float]
    misses: tuple[Answer, ...]


def read_offers(path: Path) -> list[Offer]:
    """Raises UsageError for a file that cannot be read, is not a list of capabilities, or names one twice."""
    try:
        offers = msgspec.json.decode(_content(path), type=list[Offer])
    except msgspec.MsgspecError as exc:
        raise UsageError(f"{path} is no list of capabilities: {_lower(exc)}", hint=_OFFERS) from exc
    twice = [name for name, times in Counter(offer.id for offer in offers).items() if times > 1]
    if twice:
        raise UsageError(f"{path} has two capabilities of the id {twice[0]!r}.", hint="Give each an id of its own.")
    if not offers:
        raise UsageError(f"{path} holds no capability.", hint=_OFFERS)
    return offers


def read_intents(path: Path, offers: Sequence[Offer]) -> list[Intent]:
    """Raises UsageError that names the line: not an intent, or one that expects a capability that is not there."""
    known = {offer.id for offer in offers}
    intents = []
    for number, line in enumerate(_content(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            intent = msgspec.json.decode(line, type=Intent)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise UsageError(f"{path}, line {number} is no intent: {_lower(exc)}", hint=_INTENTS) from exc
        if not intent.text.strip():
            raise UsageError(f"{path}, line {number} has an empty text.", hint=_INTENTS)
        unknown = sorted(set(intent.expect) - known)
        if unknown:
            raise UsageError(
                f"{path}, line {number} expects {unknown[0]!r}, which is not among the capabilities.",
                hint="Name an id of the file of capabilities, or expect [] where nothing fits.",
            )
        intents.append(intent)
    if not intents:
        raise UsageError(f"{path} holds no intent.", hint=_INTENTS)
    return intents


_OFFERS = 'Wanted: a JSON list of {"id", "type", "description", "examples": [...]}.'
_INTENTS = 'Wanted: a JSON object a line, {"text", "expect": [ids], "hard": true or false}.'


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror or exc}.", hint="Check the path.") from exc


def _lower(exc: Exception) -> str:
    text = str(exc).rstrip(".")
    return text[:1].lower() + text[1:] + "."


def make_table(offers: Sequence[Offer], encoder: Encoder) -> RoutingTable:
    """The routing table of a node that knows these capabilities, embedded as a node embeds its own."""
    table = RoutingTable()
    if encoder.reads_twice:
        table.classes.reader = lambda told: encoder.read(capability_text(told.description, told.examples)).tokens
    table.put_node(HERE, NodeInfo(name="here", addresses=(), mode="participant", software="-", labels=()))
    for offer in offers:
        descriptor = Descriptor(id=offer.id, type=offer.type, description=offer.description, examples=offer.examples)
        views = views_of(offer.description, offer.examples, encoder.encode)
        table.put_capability(HERE, Capability(descriptor, encoder.encoder_id, views))
    if encoder.reads_twice:  # as on a node that has been running for a while
        for place in table.classes.capability:
            table.classes.tokens(place)
    return table


def answer(table: RoutingTable, intent: Intent, encoder: Encoder) -> Answer:
    """What routing would make of the text. Raises UsageError for a text with nothing to read in it."""
    begun_ns = time.perf_counter_ns()
    reading = encoder.read_prompt(intent.text)
    ranking = rank(table, Query(local=HERE, vector=reading.vector, tokens=reading.weighted()))
    ms = (time.perf_counter_ns() - begun_ns) / 1e6
    shares, nothing = ranking.probabilities
    ids = [table.classes.capability[klass].descriptor.id for klass in ranking.classes]
    best = tuple(map(Score, ids[:SHOWN], ranking.scores, shares))
    if ranking.fits(ranking.scores[0]):
        return Answer(intent, ids[0], shares[0], best, ms)
    return Answer(intent, "", nothing, best, ms)


def report(answers: Sequence[Answer], encoder_id: str) -> Report:
    """answers: at least one."""
    hard = [found.right for found in answers if found.intent.hard]
    unfit = [not found.chosen for found in answers if not found.intent.expect]
    said = [not found.intent.expect for found in answers if not found.chosen]
    times = np.array([found.ms for found in answers])
    return Report(
        encoder=encoder_id,
        n=len(answers),
        accuracy=float(np.mean([found.right for found in answers])),
        hard_n=len(hard),
        accuracy_hard=_share(hard),
        nothing_fits=Nothing(len(unfit), _share(unfit), _share(said)),
        calibration_error=calibration_error(answers),
        ms={f"p{q}": round(float(np.percentile(times, q)), 3) for q in (50, 95, 99)},
        misses=tuple(found for found in answers if not found.right),
    )


def calibration_error(answers: Sequence[Answer]) -> float:
    """The expected calibration error of `Answer.probability`."""
    told = np.array([found.probability for found in answers])
    right = np.array([found.right for found in answers], dtype=np.float64)
    bins = np.minimum((told * BINS).astype(int), BINS - 1)
    gaps = [abs(float((told[bins == bin_] - right[bins == bin_]).sum())) for bin_ in range(BINS)]
    return sum(gaps) / len(answers)


def _share(flags: Sequence[bool]) -> float | None:
    return float(np.mean(flags)) if flags else None


def as_json(found: Report) -> dict[str, Any]:
    """The report for programs: numbers rounded, a miss with what was expected and the scores of the best."""
    plain: dict[str, Any] = _rounded(msgspec.to_builtins(found))
    plain["misses"] = [
        {**miss.pop("intent"), **{key: value for key, value in miss.items() if key != "ms"}} for miss in plain["misses"]
    ]
    return plain


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
