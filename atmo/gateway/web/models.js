// Models: what this node runs, what the mesh serves, and what travels between nodes.

import { json } from "./api.js";
import { byId, el, eachFrame, follow, foreign, name, setText } from "./dom.js";
import { bytes, count, duration, finite, number, percent, short } from "./format.js";
import { story } from "./story.js";

const LOOK_MS = 1000;
const parts = {};
let timer = 0;
let known = true;

export function startModels() {
  parts.lead = el("p", { class: "lead" });
  parts.here = el("ul", { class: "tiles" });
  parts.mesh = el("ul", { class: "tiles" });
  parts.transfers = el("ul", { class: "transfers" });
  parts.none = el("p", { class: "empty" }, "Nothing is on its way. When a model comes from another node or goes there, you can watch it here.");
  byId("view-models").append(
    el("header", { class: "panel-head" }, el("h1", { id: "models-title", tabindex: -1 }, "Models"), parts.lead),
    section("On this node", parts.here),
    section("In the mesh", parts.mesh),
    section("Transfers", parts.transfers, parts.none),
  );
  story.addEventListener("mesh", eachFrame(() => byId("view-models").hidden || showMesh()));
  return show;
}

function section(title, ...body) {
  return el("section", { class: "card" }, el("h2", {}, title), body);
}

/** Called when the view is opened; it looks again for as long as it is open. */
async function show() {
  clearTimeout(timer);
  showMesh();
  if (byId("view-models").hidden || document.hidden) {
    if (!byId("view-models").hidden) timer = setTimeout(show, LOOK_MS);
    return;
  }
  if (story.closed) return setText(parts.lead, "Your API key is for some models only. To see transfers takes a key for all.");
  try {
    const status = await json("/api/status");
    setText(parts.lead, `${foreign(status.node.name, 60)} uses ${bytes(status.total_rss_bytes)} of memory, its models included.`);
    follow(parts.here, status.capabilities, (one) => one.id, hereTile, showHere);
    parts.here.dataset.empty = status.capabilities.length ? "" : "This node serves no model. atmo node start --serve FILE.gguf does.";
    await showTransfers();
  } catch (trouble) {
    if (trouble.kind !== "unreachable") setText(parts.lead, trouble.message);
  }
  clearTimeout(timer);
  timer = setTimeout(show, LOOK_MS);
}

function hereTile() {
  return el("li", { class: "tile" }, el("h3"), el("p", { class: "state" }), el("p", { class: "soft" }), el("p", { class: "soft" }));
}

function showHere(tile, one) {
  const [title, state, numbers, detail] = tile.children;
  setText(title, foreign(short(one.id), 60));
  tile.dataset.state = one.state;
  setText(state, foreign(one.state, 40));
  const told = [foreign(one.engine, 30), one.context ? `${number(one.context)} tokens of context` : "", one.slots ? `${one.in_flight} of ${count(one.slots, "slot")} busy` : "", one.queued ? `${one.queued} waiting` : "", one.load_s ? `loaded in ${duration(one.load_s)}` : ""];
  setText(numbers, told.filter(Boolean).join(" · "));
  setText(detail, foreign([one.detail, one.hint].filter(Boolean).join(" "), 400));
}

function showMesh() {
  const served = (story.models ?? []).filter((model) => model.atmo);
  follow(parts.mesh, served, (model) => model.id, () => el("li", { class: "tile" }, el("h3"), el("p", { class: "state" }), el("p", { class: "soft", dir: "auto" }), el("p", { class: "on" })), (tile, model) => {
    const [title, type, about, on] = tile.children;
    setText(title, foreign(model.id, 60));
    setText(type, foreign(model.atmo.type, 30));
    setText(about, foreign(model.atmo.description, 300));
    setText(on, `on ${model.atmo.nodes.map((node) => foreign(node, 40)).join(", ")}`);
  });
  parts.mesh.dataset.empty = served.length ? "" : "Nobody serves a model yet.";
}

async function showTransfers() {
  let transfers = [];
  if (known) {
    try {
      ({ transfers } = await json("/api/transfers"));
    } catch (trouble) {
      if (trouble.kind !== "missing") throw trouble;
      known = false; // a node without transfers: it will not learn them while it runs
    }
  }
  parts.none.hidden = transfers.length > 0;
  follow(parts.transfers, transfers, (one) => `${one.root} ${one.direction}`, transferItem, showTransfer);
}

function transferItem() {
  return el("li", { class: "transfer" }, el("div", { class: "row" }, el("strong"), el("span", { class: "state" })), el("progress", { max: 1, value: 0 }), el("p", { class: "soft" }), el("ul", { class: "sources" }));
}

function showTransfer(item, one) {
  const [head, progress, told, sources] = item.children;
  const share = one.bytes_total > 0 ? Math.min(1, one.bytes_done / one.bytes_total) : 0;
  const title = foreign(one.model || one.root, 60);
  item.dataset.state = one.state;
  setText(head.firstChild, title);
  setText(head.lastChild, one.state === "running" ? (one.direction === "in" ? "coming" : "going") : foreign(one.state, 20));
  progress.value = share;
  progress.setAttribute("aria-label", `${title}: ${percent(share)}`);
  const words = [`${bytes(one.bytes_done)} of ${bytes(one.bytes_total)}`, percent(share)];
  if (one.state === "running") words.push(`${bytes(one.bytes_per_s)}/s`, finite(one.eta_s) ? `${duration(one.eta_s)} left` : "");
  if (one.error) words.push(foreign(one.error, 300));
  setText(told, words.filter(Boolean).join(" · "));
  const verb = one.direction === "in" ? "from" : "to";
  follow(sources, one.sources ?? [], (source) => source.peer, () => el("li"), (line, source) => line.replaceChildren(`${verb} `, name(source.name || story.nameOf(source.peer)), ` ${bytes(source.bytes)}`));
}
