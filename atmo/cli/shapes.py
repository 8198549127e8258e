"""What `--json` prints, as types: docs/json.md is written from them, and a test holds what a real node says against
them.

Fields may be added. None is removed or changes its meaning but in a new major version. Times end in `_s` (seconds;
since 1970 where it is a moment) or `_ms`, sizes in `_bytes`; peers and meshes are written as `12D3KooW...`; `null` is
a number that is not known.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all of them."""


class Failure(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What went wrong. code: one word for programs; hint: what to do, may be empty."""

    code: str
    message: str
    hint: str


class Failed(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Instead of all below when a command fails; the exit code says the same."""

    error: Failure


class NodeFacts(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node of this machine. api: URL of OpenAI's API, empty without one; api_note: what is unusual about it."""

    name: str
    peer: str
    pid: int
    mode: str
    address: str
    mesh: str
    labels: dict[str, str]
    api: str
    api_note: str
    home: str
    log: str
    uptime_s: float


class Served(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability of this node and the engine behind it. state: `loading`, `ready`, `down` (being restarted),
    `idle` or `failed`; detail, hint: why, and what to do; context: tokens."""

    id: str
    type: str
    model: str
    state: str
    detail: str
    hint: str
    engine: str
    context: int
    load_s: float
    worker_pid: int | None
    in_flight: int
    queued: int
    slots: int


class Runtime(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server such as Ollama that was found or configured. trouble: empty when all is well."""

    runtime: str
    kind: str
    models: list[str]
    latency_ms: float
    trouble: str


class Diagnosis(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something wrong around a node. serious: what should work does not."""

    what: str
    remedy: str
    serious: bool


class Started(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """peers: how many links are up; problems: `diagnosis` in words; total_rss_bytes: with the workers."""

    node: NodeFacts
    capabilities: list[Served]
    runtimes: list[Runtime]
    peers: int
    problems: list[str]
    diagnosis: list[Diagnosis]
    rss_bytes: int
    total_rss_bytes: int


class Status(Started, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `atmo node start`. Where no node runs: `{"running": false}` and exit code 3."""

    running: bool


class Stopped(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of the nodes that ended."""

    stopped: list[str]


class LogLine(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One object a line: a line of the log."""

    line: str


class Rotated(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Peer ids. revoked: whether the mesh is told that the old one is out, which only its owner can."""

    old: str
    new: str
    revoked: bool


class Term(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An offer and what its potential (expected delay) is made of; see docs/routing.md."""

    peer: str
    capability: str
    node: str
    relevance: float
    latency_s: float | None
    service_s: float | None
    in_flight: float
    own: float
    slots: float
    age_s: float | None
    weight: float
    phi_s: float | None
    p75_s: float | None
    failures: float
    potential_s: float | None
    why: str


class Class(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability among the best that fit, and its fitness."""

    capability: str
    relevance: float
    gap: float
    strength: float
    price: float
    time: float
    version: float
    fitness: float
    expected_s: float | None
    nodes: int
    first: float | None
    second: float | None


class Passed(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability that fits less, and why."""

    capability: str
    relevance: float
    why: str


class Excluded(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many offers a condition excluded."""

    reason: str
    rows: int


class Decision(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a request goes, with every term. request_id: empty when nothing was asked; by_text: the text's meaning
    decided; fallback: nothing fits, a general chat answers, or what can read the image; explored: chosen to learn
    how it is; alternatives: peer and capability to turn to if this one fails; unfit: the relevance below which nothing
    would have fitted, 0 where the text had no say; lines: all of it in words."""

    request_id: str
    asked_at: str
    chosen: Term
    runners: list[Term]
    classes: list[Class]
    passed: list[Passed]
    excluded: list[Excluded]
    alternatives: list[tuple[str, str]]
    by_text: bool
    fallback: bool
    explored: bool
    sure: bool
    rows_read: int
    rows_known: int
    elapsed_s: float
    probability: float
    unfit: float
    lines: list[str]


class SurveyedOffer(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """reasons: why it is out of the question, empty if it is not."""

    node: str
    capability: str
    reasons: list[str]


class Survey(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every offer that is known, those that could serve first."""

    offers: list[SurveyedOffer]
    excluded: list[Excluded]
    known: int
    feasible: int


class Route(Decision, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The decision, and why each other offer was not chosen."""

    survey: Survey


class Done(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who answered and how long it took. finish: `stop`, `length` or `tool_calls`; local: this node; first_s, total_s:
    until the first and the last word, as the asked node saw it; queue_s, prefill_s, decode_s: as the engine did."""

    request_id: str
    node: str
    peer: str
    local: bool
    capability: str
    finish: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float
    first_s: float
    total_s: float
    decision_s: float


class Retry(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another node was asked. resumed: an answer that had begun goes on there; other_model: with another model."""

    because: str
    resumed: bool
    other_model: bool


class Answer(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """answer: text; of an embedding model a list of numbers; of a classifier pairs of label and share. plan, transfer,
    loading, receipt: only with `--private`: the model that came for it, and the signed receipt."""

    answer: str | list[float | list[Any]]
    retries: list[Retry]
    route: Decision
    done: Done
    plan: dict[str, Any] | None = None
    transfer: dict[str, Any] | None = None
    loading: dict[str, Any] | None = None
    receipt: dict[str, Any] | None = None


class Said(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One object for each question that was piped in."""

    question: str
    answer: str
    done: Done


class Offer(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability of a node. service_s: of a usual request; decode_tps: tokens a second of one answer; ejected_s: how
    long it is not asked, after failures."""

    id: str
    type: str
    model: str
    description: str
    ready: bool
    in_flight: int
    slots: int
    queued: int
    service_s: float
    decode_tps: float
    ejected_s: float


class MeshNode(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """state: `self`, `linked`, `known`, `lost` or `suspect`, as in docs/watch.md; tps: tokens a second at present."""

    peer: str
    name: str
    self: bool
    linked: bool
    neighbour: bool
    state: str
    addresses: list[str]
    mode: str
    software: str
    labels: dict[str, str]
    cpu: str
    cores: int
    memory_bytes: int
    rtt_ms: float | None
    in_flight: int
    slots: int
    queued: int
    tps: float
    capabilities: list[Offer]


class DeadNode(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who died lately."""

    peer: str
    name: str
    state: str
    labels: dict[str, str]


class Accusation(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Peer ids: who says of whom that it is dead."""

    by: str
    of: str


class Mesh(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """full_mesh: all link to all; seq: the last event that is in here; alone: why there is no peer, else empty."""

    mesh: str
    nodes: list[MeshNode]
    dead: list[DeadNode]
    full_mesh: bool
    accusations: list[Accusation]
    seq: int
    alone: str
    problems: list[str]


class Made(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The new mesh's id."""

    mesh: str


class Invited(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """token: a password; warnings: what will keep the other machine from finding anybody."""

    token: str
    until_s: int
    uses: int
    warnings: list[str]


class Joined(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """addresses: whom the node will dial."""

    mesh: str
    addresses: list[str]


class Left(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """False where no other mesh had been joined."""

    left: bool


class Member(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """invite: the id of the invite it came by, empty if none."""

    id: str
    name: str
    invite: str
    until_s: int
    linked: bool
    revoked: bool


class Invite(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An invite that was made here."""

    id: str
    until_s: int
    uses: int
    used: int
    renewable: bool
    revoked: bool


class Members(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """owner: whether this user owns the mesh."""

    mesh: str
    owner: bool
    members: list[Member]
    invites: list[Invite]


class Revoked(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """kind: `member` or `invite`."""

    revoked: str
    kind: str


class ModelFacts(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that can be loaded here. context, parameters: 0 where not known; embedded: it comes with atmo."""

    name: str
    type: str
    size_bytes: int
    context: int
    parameters: int
    quantisation: str
    architecture: str
    licence: str
    description: str
    embedded: bool
    path: str


class LocalModel(ModelFacts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model on this machine. root: its name by content, empty while nobody reckoned it; source: where it is from."""

    root: str
    pinned: bool
    shared: bool
    source: str


class ModelFile(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a model."""

    path: str
    size_bytes: int


class StoredModel(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model in the store. root: its name by content; done_bytes: what is there of it; used_s: when it was used last;
    only: labels that a node must carry to be given it."""

    name: str
    root: str
    size_bytes: int
    done_bytes: int
    files: list[ModelFile]
    folder: str
    source: str
    added_s: float
    used_s: float
    pinned: bool
    shared: bool
    only: dict[str, str]


class PartialModel(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that is not whole yet; where more is known of it, it is a StoredModel."""

    name: str
    size_bytes: int
    done_bytes: int
    root: str = ""
    files: list[ModelFile] = []
    folder: str = ""
    source: str = ""
    added_s: float = 0.0
    used_s: float = 0.0
    pinned: bool = False
    shared: bool = False
    only: dict[str, str] = {}


class ServedModel(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability in the mesh. examples: requests that suit it; nodes: names of those that offer it."""

    id: str
    type: str
    model: str
    description: str
    examples: list[str]
    nodes: list[str]


class SeededModel(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who gives which model away. complete: all of it; only: labels that a node must carry to be given it;
    source: the file of a hub that it says this is."""

    root: str
    model: str
    size_bytes: int
    complete: bool
    only: dict[str, str]
    source: str
    peer: str
    node: str


class Models(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """partial: on their way; served: empty where no node runs; problems: files that look like models and cannot be
    used."""

    local: list[LocalModel]
    partial: list[PartialModel]
    served: list[ServedModel]
    problems: list[str]


class Imported(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """new: it was not there before."""

    model: StoredModel
    new: bool


class Pulled(Imported, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """from: the source, empty where nothing had to be fetched; notes: why those that were asked before it were not."""

    from_: str = msgspec.field(name="from")
    notes: list[str]
    fetched_bytes: int
    seconds: float


class Inspected(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """stored: null for one that is not in the store; model: null for one that no engine here can run."""

    stored: StoredModel | None
    model: ModelFacts | None


class Removed(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is gone."""

    removed: list[StoredModel]


class Collected(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """fits: what is left is within the quota; dry_run: nothing was removed."""

    removed: list[StoredModel]
    freed_bytes: int
    used_bytes: int
    quota_bytes: int
    fits: bool
    dry_run: bool


class VerifiedModel(StoredModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """bad: chunks that are not what they were, by number; the exit code is 7 then."""

    bad: list[Any]


class VerifiedModels(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each model that was read."""

    verified: list[VerifiedModel]


class Marked(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model as it is now."""

    model: StoredModel


class Whereabouts(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """here: in the store of this machine; seeds: who in the mesh gives it away; loose: a file or embedded model."""

    model: str
    here: list[StoredModel]
    seeds: list[SeededModel]
    loose: ModelFacts | None


class Spread(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of all requests."""

    median: float
    least: float
    most: float


class Measured(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """first_ms: until the first word; added_ms: of that, what was not the engine's; tokens_per_s: from then on."""

    node: str
    capability: str
    first_ms: Spread
    added_ms: Spread
    total_ms: Spread
    tokens_per_s: Spread | None
    tokens: int


class Hop(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much later the first word comes from another node, request by request."""

    to: str
    first_ms: Spread


class Bench(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """nodes: this one, and the other one where there is one."""

    requests: int
    max_tokens: int
    nodes: list[Measured]
    hop: Hop | None


class Share(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the intents that nothing serves. Null where there is none."""

    n: int
    recall: float | None
    precision: float | None


class Score(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well a capability fits a text."""

    id: str
    relevance: float
    probability: float


class Miss(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text that found another capability than expected. chosen: empty for nothing."""

    text: str
    expect: list[str]
    hard: bool
    chosen: str
    probability: float
    best: list[Score]


class Relevance(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ms: what one decision took, p50, p95 and p99."""

    encoder: str
    n: int
    accuracy: float
    hard_n: int
    accuracy_hard: float | None
    nothing_fits: Share
    calibration_error: float
    ms: dict[str, float]
    misses: list[Miss]


class Key(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API key without its secret. per_minute, at_once: 0 for no limit; models: empty for all; revoked_s: null while
    it is good."""

    id: str
    name: str
    created_s: float
    per_minute: int
    at_once: int
    models: list[str]
    revoked_s: float | None


class NewKey(Key, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """key: the secret, which is shown this once."""

    key: str


class Keys(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Revoked ones included."""

    keys: list[Key]


class RevokedKey(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The key as it is now."""

    revoked: Key


class Setting(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """source: `default`, the file's path, the variable's name or `flag`."""

    name: str
    value: Any
    source: str


class Settings(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, also those that have their default. file: it need not be there."""

    file: str
    settings: list[Setting]


class Written(Setting, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting as it holds now, which a variable of the environment may decide."""

    file: str


class ConfigPath(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the file is, or would be."""

    file: str
    exists: bool


class Checked(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """serve: models that a node would serve. What is wrong comes as `error`, with exit code 2."""

    valid: bool
    file: str
    serve: list[str]


class Finding(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """check: what was looked at, one word; state: `ok`, `note` (works, but worth knowing) or `bad`."""

    check: str
    state: str
    what: str
    remedy: str


class Health(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """healthy: nothing is bad; the exit code is 1 otherwise."""

    healthy: bool
    findings: list[Finding]


class Receipt(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a node stated of a request whose data had to stay; docs/privacy.md says what each part means. version: of
    the statement; signer: whose signature it is; certificate: what makes it a member of the mesh."""

    version: int
    id: str
    mesh: str
    certificate: str
    node: dict[str, Any]
    asked_at_s: float
    done_at_s: float
    rule: dict[str, Any]
    model: dict[str, Any]
    answered_by: dict[str, Any]
    request_bytes_out: list[dict[str, Any]]
    transfer: dict[str, Any] | None
    decision: list[str]
    signer: str


class KeptReceipt(Receipt, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """genuine: it was signed by whom it names, as it stands in the file."""

    file: str
    genuine: bool


class Receipts(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of this home."""

    receipts: list[KeptReceipt]


class CheckedReceipt(KeptReceipt, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """genuine: nothing is wrong with it; problems: what is, and the exit code is 1; own_mesh: it is of the mesh of this
    home; revoked_at_s: when that mesh took its signer back, as far as is known here."""

    problems: list[str]
    own_mesh: bool
    revoked_at_s: int | None


class Version(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the program."""

    version: str


# By command. Those of `atmo mesh watch` are events, which docs/watch.md lists.
COMMANDS: dict[str, type[Shape]] = {
    "node": Status,
    "node start": Started,
    "node stop": Stopped,
    "node status": Status,
    "node logs": LogLine,
    "node rotate": Rotated,
    "ask": Answer,
    "chat": Said,
    "mesh": Mesh,
    "mesh create": Made,
    "mesh invite": Invited,
    "mesh join": Joined,
    "mesh leave": Left,
    "mesh members": Members,
    "mesh revoke": Revoked,
    "models": Models,
    "models list": Models,
    "models import": Imported,
    "models pull": Pulled,
    "models inspect": Inspected,
    "models rm": Removed,
    "models gc": Collected,
    "models verify": VerifiedModels,
    "models share": Marked,
    "models pin": Marked,
    "models where": Whereabouts,
    "route": Route,
    "explain": Decision,
    "bench": Bench,
    "eval routing": Relevance,
    "keys": Keys,
    "keys create": NewKey,
    "keys list": Keys,
    "keys revoke": RevokedKey,
    "config": Settings,
    "config show": Settings,
    "config get": Setting,
    "config set": Written,
    "config unset": Written,
    "config path": ConfigPath,
    "config edit": Checked,
    "config check": Checked,
    "doctor": Health,
    "receipt list": Receipts,
    "receipt show": Receipt,
    "receipt verify": CheckedReceipt,
    "version": Version,
}
# Those whose objects are described elsewhere.
ELSEWHERE = {"mesh watch": "docs/watch.md"}
