// A routing decision with every term, as docs/routing.md derives them.

import { el, foreign, name } from "./dom.js";
import { count, duration, finite, number, percent, short } from "./format.js";
import { story } from "./story.js";

/** decision: what `/api/requests/{id}`, `/api/route` or a reply's `atmo.decision` tells. */
export function explanation(decision) {
  const { chosen } = decision;
  return el(
    "div",
    { class: "why" },
    el("p", { class: "lead" }, name(chosen.node), " answers with ", name(short(chosen.capability)), `: ${foreign(chosen.why, 400)}.`),
    el("ul", { class: "facts" }, facts(decision).map((fact) => el("li", {}, fact))),
    candidates(decision),
    classes(decision),
    reasons("Capabilities that were not chosen", (decision.passed ?? []).map((one) => [short(one.capability), one.why])),
    reasons("Out of the question", (decision.excluded ?? []).map((one) => [count(one.rows, "offer"), one.reason])),
    survey(decision.survey),
    reasons("Where it would go next", (decision.alternatives ?? []).map((one, at) => [`${at + 1}.`, alternative(one, decision)])),
    el("details", {}, el("summary", {}, "In words"), el("ul", { class: "words" }, (decision.lines ?? []).map((line) => el("li", {}, foreign(line, 1000))))),
  );
}

function facts(decision) {
  const told = [`decided in ${duration(decision.elapsed_s)}`, `${number(decision.rows_read)} of ${count(decision.rows_known, "offer")} read`];
  if (decision.fallback) told.push(`nothing fits the text, so ${decision.chosen.capability.includes(":chat:") ? "a general chat" : "what can read all of the request"} answers`);
  else if (decision.by_text) told.push(`relevance ${number(decision.chosen.relevance, 3)}, ${decision.sure ? "clearly" : "narrowly"} the best fit`, `the right one in ${percent(decision.probability)}`);
  else told.push("the model or type was named, so the text had no say");
  if (decision.explored) told.push("drawn evenly, to keep learning");
  return told;
}

const TERMS = [
  ["Path", (one) => duration(one.latency_s), "Path latency"],
  ["Service", (one) => duration(one.service_s), "Time for work of this size"],
  ["Queue", (one) => `${number(one.in_flight + one.own)} / ${number(one.slots)}`, "Requests there and ours on the way, of slots"],
  ["Sum", (one) => duration(one.phi_s), "Path + service × (1 + waiting / slots)"],
  ["Age", (one) => (finite(one.age_s) ? duration(one.age_s) : "never told"), "How old the report of its load is"],
  ["Trust", (one) => percent(one.weight), "How much of the sum counts; the rest is the 75th percentile of all"],
  ["Fails", (one) => number(one.failures, 2), "Recent failures, halved every ten seconds"],
];

function candidates({ chosen, runners = [] }) {
  const all = [chosen, ...runners];
  const most = Math.max(...all.map((one) => (finite(one.potential_s) ? one.potential_s : 0)), 1e-9);
  const head = el("tr", {}, ["Node", "Why", "Expected"].map((title) => el("th", { scope: "col" }, title)), TERMS.map(([title, , about]) => el("th", { scope: "col", class: "num", title: about }, title)));
  const rows = all.map((one, at) =>
    el(
      "tr",
      { class: at ? null : "chosen" },
      el("th", { scope: "row" }, name(one.node)),
      el("td", { class: "reason" }, at ? foreign(one.why, 400) : "chosen"),
      el("td", {}, bar(one.potential_s / most), " ", duration(one.potential_s)),
      TERMS.map(([, shown]) => el("td", { class: "num" }, shown(one))),
    ),
  );
  return titled(`Nodes that could answer with ${foreign(short(chosen.capability), 60)}`, scrolled("Candidates", head, rows));
}

function bar(share) {
  const inner = el("span");
  inner.style.inlineSize = `${Math.round(100 * Math.min(1, Math.max(0, finite(share) ? share : 0)))}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inner);
}

const FITNESS = [
  ["Relevance", (one) => number(one.relevance, 3)],
  ["Fitness", (one) => number(one.fitness, 3)],
  ["Strength", (one) => `+${number(one.strength, 3)}`],
  ["Version", (one) => `+${number(one.version, 3)}`],
  ["Gap", (one) => `−${number(one.gap, 3)}`],
  ["Price", (one) => `−${number(one.price, 3)}`],
  ["Time", (one) => `−${number(one.time, 3)}`],
  ["Nodes", (one) => number(one.nodes)],
];

function classes({ classes: compared = [] }) {
  if (compared.length < 2) return null;
  const head = el("tr", {}, el("th", { scope: "col" }, "Capability"), FITNESS.map(([title]) => el("th", { scope: "col", class: "num" }, title)));
  const rows = compared.map((one, at) => el("tr", { class: at ? null : "chosen" }, el("th", { scope: "row" }, name(short(one.capability))), FITNESS.map(([, shown]) => el("td", { class: "num" }, shown(one)))));
  return titled("Capabilities that fit about as well", scrolled("Compared capabilities", head, rows));
}

function survey(seen) {
  if (!seen?.offers?.length) return null;
  const head = el("tr", {}, ["Node", "Capability", "What speaks against it"].map((title) => el("th", { scope: "col" }, title)));
  const rows = seen.offers.map((one) => el("tr", {}, el("th", { scope: "row" }, name(one.node)), el("td", {}, name(short(one.capability))), el("td", {}, one.reasons.length ? one.reasons.map((why) => foreign(why, 300)).join("; ") : "nothing")));
  return titled(`Every offer: ${number(seen.feasible)} of ${number(seen.known)} could serve this`, scrolled("Offers", head, rows));
}

function reasons(title, pairs) {
  if (!pairs.length) return null;
  return titled(title, el("dl", { class: "pairs" }, pairs.map(([what, why]) => [el("dt", {}, name(what)), el("dd", {}, foreign(why, 400))])));
}

function alternative([peer, capability], { runners = [] }) {
  const known = runners.find((runner) => runner.peer === peer);
  return `${foreign(known?.node ?? story.nameOf(peer))} with ${foreign(short(capability))}`;
}

function titled(title, body) {
  return el("section", {}, el("h3", {}, title), body);
}

export function scrolled(label, head, rows) {
  return el("div", { class: "wide", role: "group", "aria-label": label, tabindex: 0 }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows)));
}
