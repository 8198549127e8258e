// The mesh monitor: picture, nodes, capabilities, events.

import { scrolled } from "./explain.js";
import { byId, el, eachFrame, follow, foreign, name, setText } from "./dom.js";
import { bytes, clock, count, duration, number, short } from "./format.js";
import { Graph } from "./graph.js";
import { openDrawer } from "./drawer.js";
import { MEMBERS, STATES, story } from "./story.js";

const EVENTS_SHOWN = 60;
let graph = null;
const parts = {};

export function startMesh() {
  graph = new Graph((peer) => openNode(peer));
  parts.lead = el("p", { class: "lead" });
  parts.problems = el("ul", { class: "problems" });
  parts.nodes = el("tbody");
  parts.capabilities = el("tbody");
  parts.events = el("ol", { class: "events", tabindex: "0", "aria-label": "What happened" });
  byId("view-mesh").append(
    el("header", { class: "panel-head" }, el("h1", { id: "mesh-title", tabindex: -1 }, "Mesh"), parts.lead),
    parts.problems,
    el("div", { class: "card picture" }, graph.view, legend()),
    card("Nodes", tall("Nodes", ["Node", "State", "Mode", "Load", "Latency", "Tokens/s", "Offers", "Labels"], parts.nodes)),
    card("Capabilities", table("Capabilities", ["Capability", "Type", "Nodes", "Load", "Tokens/s each"], parts.capabilities)),
    card("What happened", parts.events),
  );
  const draw = eachFrame(() => byId("view-mesh").hidden || show());
  const tell = eachFrame(() => byId("view-mesh").hidden || showEvents());
  const drawn = { request: () => {}, event: tell };
  story.addEventListener("change", ({ detail }) => (drawn[detail] ?? draw)());
  story.addEventListener("request", ({ detail }) => byId("view-mesh").hidden || fly(detail));
  return show;
}

function card(title, body) {
  return el("section", { class: "card" }, el("h2", {}, title), body);
}

const HIDEABLE = new Set(["Mode", "Labels", "Offers", "Type", "Tokens/s"]);
const NUMBERS = new Set(["Load", "Latency", "Tokens/s", "Tokens/s each", "Nodes"]);

function table(label, titles, body) {
  const head = el("tr", {}, titles.map((title) => el("th", { scope: "col", class: classOf(title) }, title)));
  const made = scrolled(label, head, []);
  made.querySelector("tbody").replaceWith(body);
  return made;
}

/** As high as a screen at most: what comes after it is not behind hundreds of rows. */
function tall(...made) {
  const shown = table(...made);
  shown.classList.add("tall");
  return shown;
}

function classOf(title) {
  return [NUMBERS.has(title) && "num", HIDEABLE.has(title) && "wide-only"].filter(Boolean).join(" ") || null;
}

function legend() {
  return el("ul", { class: "legend", "aria-hidden": "true" }, [...["self", "linked", "suspect", "dead", "known"].map((state) => el("li", {}, dot(state), STATES[state])), el("li", {}, dot("busy"), "busy")]);
}

function dot(state) {
  return el("span", { class: "dot", "data-state": state, "aria-hidden": "true" });
}

function show() {
  const { report } = story;
  if (story.closed) return setText(parts.lead, "Your API key is for some models only. To look at the mesh takes a key for all.");
  if (!report) return setText(parts.lead, "Looking who is there.");
  setText(parts.lead, lead(report));
  follow(parts.problems, problemsOf(report), (text) => text, (text) => el("li", {}, foreign(text, 500)));
  graph.draw(report);
  follow(parts.nodes, story.nodes, (node) => node.peer, nodeRow, showNode);
  follow(parts.capabilities, capabilitiesOf(report), (one) => one.id, () => el("tr", {}, ["", "wide-only", "num", "num", "num"].map((kind, at) => el(at ? "td" : "th", { class: kind || null, scope: at ? null : "row" }))), showCapability);
  showEvents();
}

function showEvents() {
  follow(parts.events, story.events.slice(0, EVENTS_SHOWN), (event) => event.seq, eventItem);
  parts.events.classList.toggle("none", !story.events.length);
}

function lead(report) {
  const dead = report.dead.length ? `, ${report.dead.length} dead lately` : "";
  const offers = report.nodes.reduce((sum, node) => sum + node.capabilities.length, 0);
  return `${count(report.nodes.length, "node")}${dead}, ${count(offers, "offer")}, as ${foreign(story.own?.name ?? "this node", 60)} sees it.`;
}

function problemsOf(report) {
  return [...new Set([report.alone, ...report.problems].filter(Boolean))];
}

function nodeRow(node) {
  const cells = ["State", "Mode", "Load", "Latency", "Tokens/s", "Offers", "Labels"].map((title) => el("td", { class: classOf(title) }));
  const open = el("button", { type: "button", class: "link", onclick: () => openNode(node.peer) });
  return el("tr", {}, el("th", { scope: "row" }, open), cells);
}

function showNode(row, node) {
  const [title, state, mode, load, latency, tps, offers, labels] = row.children;
  setText(title.firstChild, foreign(node.name, 60) || story.nameOf(node.peer));
  row.dataset.state = node.state in STATES ? node.state : "known";
  if (state.dataset.state !== node.state) {
    state.dataset.state = node.state;
    state.replaceChildren(dot(node.state), STATES[node.state] ?? foreign(node.state, 20));
  }
  setText(mode, foreign(node.mode, 20));
  setText(load, loadOf(node));
  setText(latency, node.self || node.rtt_ms === null || node.rtt_ms === undefined ? "–" : duration(node.rtt_ms / 1000));
  setText(tps, number(node.tps));
  setText(offers, (node.capabilities ?? []).map((offer) => foreign(short(offer.id), 30)).join(", "));
  setText(labels, labelsOf(node));
}

function loadOf({ slots, in_flight: busy, queued }) {
  if (!slots) return "–";
  return `${number(busy)}/${number(slots)}${queued ? ` +${number(queued)}` : ""}`;
}

function labelsOf(node) {
  return Object.entries(node.labels ?? {}).map(([key, value]) => `${foreign(key, 30)}=${foreign(value, 30)}`).join(" ");
}

function capabilitiesOf(report) {
  const found = new Map();
  for (const node of report.nodes) {
    for (const offer of node.capabilities) {
      const one = found.get(offer.id) ?? { id: offer.id, type: offer.type, description: offer.description, nodes: 0, busy: 0, slots: 0, queued: 0, tps: 0 };
      found.set(offer.id, { ...one, nodes: one.nodes + 1, busy: one.busy + offer.in_flight, slots: one.slots + offer.slots, queued: one.queued + offer.queued, tps: Math.max(one.tps, offer.decode_tps) });
    }
  }
  return [...found.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
}

function showCapability(row, one) {
  const [title, type, nodes, load, tps] = row.children;
  setText(title, foreign(short(one.id), 60));
  title.title = foreign(one.description, 300);
  setText(type, foreign(one.type, 30));
  setText(nodes, number(one.nodes));
  setText(load, loadOf({ slots: one.slots, in_flight: one.busy, queued: one.queued }));
  setText(tps, one.tps ? number(one.tps) : "–");
}

function eventItem(event) {
  const [word, stands] = MEMBERS[event.event] ?? [foreign(event.event, 30), "plain"];
  const who = event.peer ? name(event.name || story.nameOf(event.peer)) : null;
  return el("li", { "data-stands": stands }, el("time", {}, clock(event.at_s)), el("strong", {}, who), el("span", { class: "word" }, word), el("span", { class: "detail" }, foreign(event.detail, 200)));
}

function fly(event) {
  const own = story.own?.peer;
  if (event.event === "asked" || event.event === "retried") graph.fly(own, event.peer);
  else if (event.event === "serving") graph.fly(event.peer, own);
}

// One node in full

function openNode(peer) {
  const node = story.nodes.find((one) => one.peer === peer);
  if (!node) return;
  openDrawer(foreign(node.name, 80), [factsOf(node), ...(node.capabilities ?? []).map(offerOf), historyOf(peer)]);
}

function factsOf(node) {
  const facts = [
    ["State", [dot(node.state), STATES[node.state] ?? "known"]],
    ["Mode", foreign(node.mode)],
    ["Labels", labelsOf(node)],
    ["Latency", node.rtt_ms ? duration(node.rtt_ms / 1000) : ""],
    ["Machine", node.cpu ? `${foreign(node.cpu, 80)}, ${count(node.cores, "core")}, ${bytes(node.memory_bytes)}` : ""],
    ["Software", foreign(node.software)],
    ["Addresses", (node.addresses ?? []).map((address) => el("code", {}, foreign(address)))],
    ["Peer", el("code", {}, foreign(node.peer))],
  ];
  return el("dl", { class: "pairs" }, facts.filter(([, value]) => value && value.length !== 0).map(([title, value]) => [el("dt", {}, title), el("dd", {}, value)]));
}

function offerOf(offer) {
  const told = [loadOf(offer), offer.decode_tps ? `${number(offer.decode_tps)} tokens/s each` : "", offer.service_s ? `usually ${duration(offer.service_s)}` : "", offer.ready ? "" : "not ready", offer.ejected_s ? `not asked for ${duration(offer.ejected_s)} more: it failed too often` : ""];
  return el("section", { class: "offer" }, el("h3", {}, name(short(offer.id))), el("p", {}, told.filter(Boolean).join(" · ")), el("p", { class: "soft", dir: "auto" }, foreign(offer.description, 600)));
}

function historyOf(peer) {
  const about = story.events.filter((event) => event.peer === peer).slice(0, 12);
  if (!about.length) return null;
  return el("section", {}, el("h3", {}, "What happened"), el("ol", { class: "events", tabindex: "0", "aria-label": "What happened" }, about.map(eventItem)));
}

