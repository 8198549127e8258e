// The request explorer: where requests went and why, and where a text would go.

import { json } from "./api.js";
import { byId, el, eachFrame, follow, foreign, setText } from "./dom.js";
import { explanation, scrolled } from "./explain.js";
import { clock, duration, number, short } from "./format.js";
import { story } from "./story.js";

const SHOWN = 150;
const MARKS = { running: "…", answered: "✓", failed: "✗", cancelled: "–" };
const parts = {};
let opened = "";

export function startRequests() {
  parts.lead = el("p", { class: "lead" });
  parts.filter = el("input", { type: "search", id: "filter", placeholder: "node, capability, state", oninput: () => draw() });
  parts.rows = el("tbody");
  parts.empty = el("p", { class: "empty" }, "No requests yet. Ask something, and see here where it went and why.");
  parts.detail = el("section", { class: "card detail", "aria-labelledby": "detail-title", hidden: true });
  parts.text = el("input", { type: "text", id: "route-text", placeholder: "What is 2+2?", autocomplete: "off", required: true });
  parts.answer = el("div", { "aria-live": "polite" });
  const head = el("tr", {}, [["Time"], ["State"], ["Way"], ["Capability", "wide-only"], ["Tokens", "num wide-only"], ["First word", "num wide-only"], ["Took", "num"]].map(([title, kind]) => el("th", { scope: "col", class: kind }, title)));
  parts.table = scrolled("Requests", head, []);
  parts.table.querySelector("tbody").replaceWith(parts.rows);
  byId("view-requests").append(
    el("header", { class: "panel-head" }, el("h1", { id: "requests-title", tabindex: -1 }, "Requests"), parts.lead),
    tryOut(),
    el("section", { class: "card" }, el("div", { class: "row spread" }, el("h2", {}, "Recent"), el("span", {}, el("label", { class: "sr", for: "filter" }, "Filter requests"), parts.filter)), parts.table, parts.empty),
    parts.detail,
  );
  story.addEventListener("change", eachFrame(() => byId("view-requests").hidden || draw()));
  return show;
}

function tryOut() {
  const form = el("form", { class: "try" }, el("label", { for: "route-text" }, "Where would this go?"), el("div", { class: "row" }, parts.text, el("button", { type: "submit", class: "primary" }, "Explain")), el("p", { class: "note" }, "Nothing is sent to any model."));
  form.addEventListener("submit", (event) => (event.preventDefault(), route()));
  return el("section", { class: "card" }, form, parts.answer);
}

async function route() {
  setText(parts.answer, "Deciding");
  await explain(parts.answer, () => json("/api/route", { body: { text: parts.text.value, type: "chat" } }));
}

/** key: the request to open, empty for none. */
function show(key = "") {
  draw();
  if (key === opened) return;
  opened = key;
  openRequest(key);
}

function draw() {
  setText(parts.lead, story.closed ? "Your API key is for some models only. To look at requests takes a key for all." : "What was asked here or served for others. Never what was said.");
  const words = parts.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = [...story.requests.values()].reverse();
  const found = all.filter((one) => words.every((word) => `${plainWay(one)} ${one.capability} ${one.state}`.toLowerCase().includes(word))).slice(0, SHOWN);
  follow(parts.rows, found, (one) => one.key, requestRow, showRow);
  parts.table.hidden = !found.length;
  parts.empty.hidden = found.length > 0;
  if (all.length && !found.length) setText(parts.empty, "None of the requests has all of these words.");
  if (opened && !parts.detail.hidden) showFacts(story.requests.get(opened));
}

function requestRow(one) {
  const state = el("td", {}, el("span", { "aria-hidden": "true" }), el("span", { class: "word-of-state" }));
  const cells = ["", "wide-only", "num wide-only", "num wide-only", "num"].map((kind) => el("td", { class: kind || null }));
  return el("tr", {}, el("th", { scope: "row" }, el("a", { href: `#/requests/${encodeURIComponent(one.key)}` }, clock(one.at))), state, cells);
}

function showRow(row, one) {
  const [, state, way, capability, tokens, first, took] = row.children;
  row.dataset.state = one.state;
  row.classList.toggle("chosen", one.key === opened);
  setText(state.firstChild, MARKS[one.state]);
  setText(state.lastChild, ` ${one.state}`);
  state.title = one.state;
  const shown = plainWay(one);
  if (way.dataset.shown !== shown) {
    way.dataset.shown = shown;
    way.replaceChildren(...wayOf(one));
  }
  setText(capability, foreign(short(one.capability), 40));
  setText(tokens, one.tokens === null ? "–" : number(one.tokens));
  setText(first, duration(one.firstS));
  setText(took, duration(one.totalS));
}

/** `laptop → attic ✗ → desk`: attic was asked first and did not answer. What a node answers itself goes nowhere. */
function stationsOf(one) {
  const own = foreign(story.own?.name ?? "here", 40);
  const names = one.peers.map((peer) => foreign(story.nameOf(peer), 40));
  if (one.ours && one.peers.length === 1 && one.peers[0] === story.own?.peer) return [own];
  return one.ours ? [own, ...names] : [...names, own];
}

function plainWay(one) {
  const stations = stationsOf(one);
  return stations.map((station, at) => (one.ours && at > 0 && at < stations.length - 1 ? `${station} ✗` : station)).join(" → ");
}

function wayOf(one) {
  const stations = stationsOf(one);
  return stations.flatMap((station, at) => [
    at ? el("span", { class: "arrow", "aria-label": "to" }, " → ") : null,
    el("bdi", { class: one.ours && at > 0 && at < stations.length - 1 ? "failed" : null }, station),
  ]).filter(Boolean);
}

async function openRequest(key) {
  parts.detail.hidden = !key;
  if (!key) return;
  const [id, side] = key.split("-");
  parts.facts = el("dl", { class: "pairs" });
  const body = el("div", {}, "Reading the decision");
  const title = el("h2", { id: "detail-title", tabindex: -1 }, "Request ", el("code", {}, foreign(id, 12)));
  parts.detail.replaceChildren(el("div", { class: "row spread" }, title, el("a", { href: "#/requests", class: "ghost small" }, "Close")), parts.facts, el("h3", {}, "Why there"), body);
  showFacts(story.requests.get(key));
  title.focus();
  parts.detail.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  if (side === "served") body.replaceChildren(el("p", {}, "The decision was made at the node that asked."));
  else await explain(body, () => json(`/api/requests/${encodeURIComponent(id)}`));
}

function showFacts(one) {
  if (!one) return parts.facts.replaceChildren(el("dd", {}, "This request is not among the recent ones any more."));
  const tps = one.decodeS > 0 && one.tokens > 1 ? `${number(one.tokens / one.decodeS)} tokens/s` : "";
  const facts = [
    ["State", `${MARKS[one.state]} ${one.state}`],
    ["Way", plainWay(one)],
    ["Capability", foreign(one.capability)],
    ["Tokens", one.tokens === null ? "" : `${number(one.promptTokens)} in, ${number(one.tokens)} out`],
    ["Speed", tps],
    ["First word", one.firstS ? duration(one.firstS) : ""],
    ["Took", one.totalS ? duration(one.totalS) : ""],
    ["Detail", foreign(one.detail, 400)],
  ].filter(([, value]) => value);
  follow(parts.facts, facts.flatMap(([title, value]) => [{ key: `${title}?`, tag: "dt", text: title }, { key: title, tag: "dd", text: value }]), (part) => part.key, (part) => el(part.tag), (node, part) => setText(node, part.text));
}

async function explain(place, read) {
  try {
    place.replaceChildren(explanation(await read()));
  } catch (trouble) {
    place.replaceChildren(el("p", { class: "trouble" }, `${trouble.message} ${trouble.hint ?? ""}`));
  }
}
