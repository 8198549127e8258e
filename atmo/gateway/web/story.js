// What the page knows of the mesh: the last report, what happened, and where requests went. One reader of the node for all
// views: a look at `/api/mesh` now and then, and `/api/events` as they happen. It rests while the page is hidden, since
// a browser keeps few connections to one node, and other tabs may want theirs.

import { call, json, objects, pause } from "./api.js";

const EVENTS_KEPT = 300;
const REQUESTS_KEPT = 300;
const LOOK_MS = 2000;
const SOON_MS = 250;
const RETRY_MS = 700;
// The node says at least once a second that it lives.
const DEAF_MS = 6000;

export const STATES = {
  self: "this node",
  linked: "linked",
  known: "known",
  lost: "link lost",
  suspect: "suspect",
  dead: "dead",
};
/** Events about members: in words, and how it stands with them. */
export const MEMBERS = {
  joined: ["joined", "good"],
  appeared: ["appeared", "good"],
  lost: ["link lost", "warn"],
  suspect: ["suspected", "warn"],
  refuted: ["back", "good"],
  healed: ["healed", "good"],
  dead: ["dead", "bad"],
  left: ["left", "plain"],
  revoked: ["revoked", "bad"],
  ejected: ["not asked for a while", "bad"],
  unreachable: ["not reachable", "warn"],
  misbehaved: ["misbehaved", "bad"],
  equivocated: ["equivocated", "bad"],
  gap: ["some events were missed", "warn"],
};
const REQUESTS = {
  asked: "running",
  retried: "running",
  answered: "answered",
  failed: "failed",
  cancelled: "cancelled",
  serving: "running",
  served: "answered",
  refused: "failed",
};
const FOR_OTHERS = new Set(["serving", "served", "refused"]);

class Story extends EventTarget {
  /** trouble: why nothing is heard, null while all is well; closed: the key in use is not good for all this. */
  report = null;
  models = null;
  events = [];
  requests = new Map();
  names = new Map();
  trouble = null;
  closed = false;
  #seq = 0;
  #look = new AbortController();

  get nodes() {
    return this.report ? [...this.report.nodes, ...this.report.dead] : [];
  }

  get own() {
    return this.report?.nodes.find((node) => node.self) ?? null;
  }

  nameOf(peer) {
    return this.names.get(peer) || (peer ? `…${String(peer).slice(-8)}` : "");
  }

  start() {
    document.addEventListener("visibilitychange", () => this.lookNow());
    this.#watch();
    this.#listen();
  }

  /** Look at the mesh at once: something happened. */
  lookNow() {
    this.#look.abort();
  }

  async #watch() {
    for (;;) {
      await visible();
      this.#look = new AbortController();
      try {
        const [report, models] = await Promise.all([json("/api/mesh"), json("/v1/models")]);
        this.#seen(report, models.data);
      } catch (trouble) {
        await this.#lost(trouble);
      }
      await pause(SOON_MS);
      const rest = this.trouble ? RETRY_MS : LOOK_MS;
      await pause(this.#look.signal.aborted && !this.trouble ? 0 : rest, this.#look.signal);
    }
  }

  #seen(report, models) {
    this.report = report;
    this.models = models;
    for (const node of this.nodes) this.names.set(node.peer, node.name);
    this.#told(null, false);
    this.#changed("mesh");
  }

  async #lost(trouble) {
    if (trouble.kind !== "forbidden") return this.#told(trouble, this.closed);
    // A key for some models only: it may ask them, and nothing else.
    try {
      this.models = (await json("/v1/models")).data;
      this.#told(null, true);
      this.#changed("mesh");
    } catch (worse) {
      this.#told(worse, this.closed);
    }
  }

  #told(trouble, closed) {
    const other = (this.trouble?.message ?? "") !== (trouble?.message ?? "") || this.closed !== closed;
    this.trouble = trouble;
    this.closed = closed;
    if (other) this.#changed("connection");
  }

  async #listen() {
    for (;;) {
      await visible();
      if (!this.closed && !this.trouble) await this.#follow().catch(() => {});
      await pause(RETRY_MS);
    }
  }

  /** Until the stream ends, is silent for too long, or the page is hidden. */
  async #follow() {
    const ended = new AbortController();
    const stop = () => ended.abort();
    let timer = setTimeout(stop, DEAF_MS);
    const hidden = () => document.hidden && stop();
    document.addEventListener("visibilitychange", hidden);
    try {
      const response = await call(`/api/events?since=${this.#seq}`, { signal: ended.signal });
      for await (const event of objects(response, ended.signal)) {
        clearTimeout(timer);
        timer = setTimeout(stop, DEAF_MS);
        this.#happened(event);
      }
    } finally {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", hidden);
      if (!document.hidden) this.lookNow();
    }
  }

  #happened(event) {
    this.#seq = event.seq;
    if (event.name && !this.names.get(event.peer)) this.names.set(event.peer, event.name);
    if (event.event in REQUESTS) {
      this.#request(event);
      this.#changed("request", event);
    } else if (event.event !== "pulse") {
      this.events.unshift(event);
      this.events.length = Math.min(this.events.length, EVENTS_KEPT);
      if (event.event === "gap") this.#missed();
      if (event.event in MEMBERS) this.lookNow();
      this.#changed("event", event);
    }
  }

  /** How running requests ended is not known; if one still runs, its end will be told. */
  #missed() {
    for (const request of this.requests.values()) {
      if (request.state === "running") Object.assign(request, { state: "cancelled", detail: "its end was missed" });
    }
  }

  #request(event) {
    const ours = !FOR_OTHERS.has(event.event);
    const key = `${event.request_id}-${ours ? "asked" : "served"}`;
    let request = this.requests.get(key);
    if (!request) {
      request = { key, id: event.request_id, ours, at: event.at_s, peers: [], detail: "" };
      this.requests.set(key, request);
      if (this.requests.size > REQUESTS_KEPT) this.requests.delete(this.requests.keys().next().value);
    }
    if (!request.peers.length || event.event === "retried") request.peers.push(event.peer);
    request.capability = event.capability;
    request.state = REQUESTS[event.event];
    request.detail = event.detail || request.detail;
    request.promptTokens = event.prompt_tokens ?? null;
    request.tokens = event.output_tokens ?? null;
    request.firstS = event.first_s ?? null;
    request.decodeS = event.decode_s ?? null;
    request.totalS = request.state === "running" ? null : (event.total_s ?? Math.max(0, event.at_s - request.at));
  }

  #changed(what, event = null) {
    this.dispatchEvent(new CustomEvent(what, { detail: event }));
    this.dispatchEvent(new CustomEvent("change", { detail: what }));
  }
}

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });
}

export const story = new Story();
