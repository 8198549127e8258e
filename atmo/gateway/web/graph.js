// The mesh as a picture: this node in the middle, those it is linked to around it, what it only heard of further out.
// The table below it says the same in words, so the picture is one image to those who do not see it.

import { follow, foreign, setText, svg } from "./dom.js";
import { STATES } from "./story.js";

// Of the picture, in its own units: the same aspect as the place it has.
const WIDE = [760, 420];
const NARROW = [400, 360];
const NARROW_PX = 560;
const FEW = 3;
const RING = 18;
const LABELS = 40;
// Of several rings, how far the innermost is from the middle, of 1; a node with a name needs the more room around it.
const INNER = 0.3;
const MARGIN = { named: [70, 50], bare: [24, 40] };
const SAMPLES = 180;
const FLIGHT_MS = 900;

export class Graph {
  constructor(onpick) {
    this.onpick = onpick;
    this.links = svg("g", { class: "links" });
    this.flights = svg("g", { class: "flights" });
    this.nodes = svg("g", { class: "nodes" });
    this.view = svg("svg", { class: "graph", role: "img", "aria-label": "Nodes and links" }, this.links, this.flights, this.nodes);
    this.at = new Map();
  }

  draw(report) {
    const all = [...report.nodes, ...report.dead];
    const [width, height] = this.view.parentElement.clientWidth < NARROW_PX ? NARROW : WIDE;
    const size = [width, all.length > FEW ? height : height * 0.65];
    this.view.setAttribute("viewBox", `0 0 ${size.join(" ")}`);
    const some = all.length <= LABELS;
    this.view.classList.toggle("many", !some);
    this.at = places(all, size, some ? MARGIN.named : MARGIN.bare);
    follow(this.nodes, all, (node) => node.peer, (node) => this.#make(node), (shape, node) => this.#move(shape, node, some));
    const links = linksOf(report, all);
    follow(this.links, links, (link) => link.key, () => svg("line"), (line, link) => this.#link(line, link));
    this.view.setAttribute("aria-label", spoken(all));
  }

  #make(node) {
    const shape = svg(
      "g",
      { class: "node", onclick: () => this.onpick(node.peer) },
      svg("circle", { class: "halo" }),
      svg("circle", { class: "body" }),
      svg("circle", { class: "load", pathLength: 100 }),
      svg("text", { class: "sign", "text-anchor": "middle", dy: "0.36em" }),
      svg("text", { class: "label", "text-anchor": "middle" }),
      svg("title"),
    );
    return shape;
  }

  #move(shape, node, labelled) {
    const { x, y, size } = this.at.get(node.peer);
    const [halo, body, load, sign, label, title] = shape.children;
    shape.setAttribute("transform", `translate(${x} ${y})`);
    shape.setAttribute("data-state", node.state in STATES ? node.state : "known");
    halo.setAttribute("r", size + 5);
    body.setAttribute("r", size);
    load.setAttribute("r", size + (labelled ? 2.5 : 2));
    load.setAttribute("stroke-dasharray", `${100 * share(node)} 100`);
    sign.setAttribute("font-size", Math.max(9, size));
    setText(sign, { dead: "×", suspect: "?", lost: "!" }[node.state] ?? "");
    label.setAttribute("y", size + 18);
    setText(label, labelled ? foreign(node.name, 16) : "");
    setText(title, `${foreign(node.name)}: ${STATES[node.state] ?? "known"}`);
  }

  #link(line, { from, to, kind }) {
    const [a, b] = [this.at.get(from), this.at.get(to)];
    for (const [key, value] of Object.entries({ x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: kind })) line.setAttribute(key, value);
  }

  /** A request goes from one node to another. */
  fly(from, to) {
    const [a, b] = [this.at.get(from), this.at.get(to)];
    if (!a || !b || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const spark = svg("circle", { class: "spark", r: from === to ? a.size : 4.5, cx: 0, cy: 0 });
    this.flights.append(spark);
    const steps = from === to
      ? [{ transform: `translate(${a.x}px, ${a.y}px) scale(1)`, opacity: 0.7 }, { transform: `translate(${a.x}px, ${a.y}px) scale(1.9)`, opacity: 0 }]
      : [{ transform: `translate(${a.x}px, ${a.y}px)`, opacity: 1 }, { transform: `translate(${b.x}px, ${b.y}px)`, opacity: 0.4 }];
    spark.animate(steps, { duration: FLIGHT_MS, easing: "ease-out" }).finished.finally(() => spark.remove());
  }
}

function share(node) {
  return node.slots > 0 ? Math.min(1, Math.max(0, node.in_flight / node.slots)) : 0;
}

/** Rings around this node: the linked first, then the others, as many on each as there is room for. */
function places(all, [width, height], [left, top]) {
  const rank = { self: 0, linked: 1, suspect: 2, lost: 2, dead: 3, known: 4 };
  const order = [...all].sort((a, b) => (rank[a.state] ?? 5) - (rank[b.state] ?? 5) || (a.peer < b.peer ? -1 : 1));
  const at = new Map();
  const others = order.filter((node) => node.state !== "self");
  const self = order.find((node) => node.state === "self");
  const pair = others.length === 1 ? width / 6 : 0; // two are beside each other
  const up = others.length === 2 ? height / 6 : 0; // three are a triangle
  if (self) at.set(self.peer, { x: width / 2 - pair, y: height / 2 - 8 - up, size: others.length > LABELS ? 16 : others.length ? 22 : 30 });
  if (pair) at.set(others[0].peer, { x: width / 2 + pair, y: height / 2 - 8, size: 18 });
  if (pair) return at;
  let next = 0;
  for (const [ring, { room, far }] of ringsOf(others.length).entries()) {
    const [across, down] = [(width / 2 - left) * far, (height / 2 - top) * far];
    const turns = others.length === 2 ? [Math.PI / 6, (5 * Math.PI) / 6] : apart(room, ring * 0.5, across, down);
    const size = others.length <= RING ? 16 : others.length <= 60 ? 9 : 6;
    for (const turn of turns) at.set(others[next++].peer, { x: round(width / 2 + across * Math.cos(turn)), y: round(height / 2 - 8 + down * Math.sin(turn)), size });
  }
  return at;
}

/** How many on each ring, and how far out it is: as many as its length has room for. */
function ringsOf(count) {
  if (count <= RING) return count ? [{ room: count, far: count < 5 ? 0.85 : 1 }] : [];
  const rings = Math.ceil(Math.sqrt(count / 7));
  const far = Array.from({ length: rings }, (_, ring) => INNER + ((1 - INNER) * ring) / (rings - 1));
  const total = far.reduce((sum, one) => sum + one, 0);
  const seats = far.map((one) => ({ room: Math.floor((count * one) / total), far: one }));
  seats[rings - 1].room += count - seats.reduce((sum, { room }) => sum + room, 0);
  return seats;
}

/** Angles of `count` places on an ellipse, from the top on, with equal ways between them. shift: by so much of a way. */
function apart(count, shift, across, down) {
  const angle = (step) => -Math.PI / 2 + (2 * Math.PI * step) / SAMPLES;
  const way = [0];
  for (let step = 1; step <= SAMPLES; step += 1) {
    const [from, to] = [angle(step - 1), angle(step)];
    way.push(way[step - 1] + Math.hypot(across * (Math.cos(to) - Math.cos(from)), down * (Math.sin(to) - Math.sin(from))));
  }
  let step = 0;
  return Array.from({ length: count }, (_, seat) => {
    const wanted = (way[SAMPLES] * (seat + (shift % 1))) / count;
    while (way[step + 1] < wanted) step += 1;
    return angle(step + (wanted - way[step]) / (way[step + 1] - way[step]));
  });
}

function round(value) {
  return Math.round(value * 10) / 10;
}

/** What this node knows: its own links, those of all to all in a small mesh, and who says that somebody is dead. */
function linksOf(report, all) {
  const own = report.nodes.find((node) => node.self);
  if (!own) return [];
  const known = new Set(all.map((node) => node.peer));
  const links = all.filter((node) => node.peer !== own.peer && node.state !== "known").map((node) => ({ from: own.peer, to: node.peer, kind: node.state in STATES ? node.state : "known" }));
  const near = report.nodes.filter((node) => node.state === "linked");
  if (report.full_mesh && near.length <= RING) {
    near.forEach((one, at) => near.slice(at + 1).forEach((other) => links.push({ from: one.peer, to: other.peer, kind: "between" })));
  }
  for (const { by, of } of report.accusations) if (known.has(by) && known.has(of)) links.push({ from: by, to: of, kind: "accused" });
  return links.map((link) => ({ ...link, key: `${link.from} ${link.to} ${link.kind === "accused"}` }));
}

function spoken(all) {
  const counts = new Map();
  for (const node of all) counts.set(node.state, (counts.get(node.state) ?? 0) + 1);
  return `Nodes and links: ${[...counts].map(([state, many]) => `${many} ${STATES[state] ?? "known"}`).join(", ")}. The table below tells the same.`;
}
