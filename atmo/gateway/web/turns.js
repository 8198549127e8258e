// The turns of a conversation as elements: what was asked, what was answered, by whom and how fast.

import { json } from "./api.js";
import { button, copy, el, eachFrame, icon, name, setText } from "./dom.js";
import { explanation } from "./explain.js";
import { count, duration, number, short } from "./format.js";
import { render } from "./markdown.js";

export function question(turn, onedit) {
  return el(
    "li",
    { class: "turn asked" },
    el("article", { "aria-label": "You" }, el("p", { class: "bubble", dir: "auto" }, turn.content)),
    el("button", { type: "button", class: "ghost icon-only edit", "aria-label": "Edit, and go on from here", title: "Edit, and go on from here", onclick: () => onedit(turn) }, icon("edit")),
  );
}

/** An answer that may still be written: `draw` shows what has come, `end` that it is complete. */
export class Answer {
  constructor(turn, { onretry }) {
    this.turn = turn;
    this.onretry = onretry;
    this.head = el("p", { class: "by" });
    this.text = el("div", { class: "prose", dir: "auto" });
    this.trouble = el("div", { class: "trouble", role: "alert" });
    this.foot = el("div", { class: "acts" });
    this.why = el("div", { class: "why-box", hidden: true });
    this.article = el("article", { "aria-label": "Answer" }, this.head, this.text, this.trouble, this.foot, this.why);
    this.node = el("li", { class: "turn answered" }, this.article);
    this.draw = eachFrame(() => this.#draw());
  }

  begin() {
    this.node.classList.add("writing");
    this.article.setAttribute("aria-busy", "true");
    this.head.replaceChildren(el("span", { class: "thinking" }, "Finding a node"));
    return this;
  }

  #draw() {
    if (this.turn.node) this.#by();
    render(this.text, this.turn.content);
    this.ondraw?.();
  }

  end() {
    this.node.classList.remove("writing");
    this.article.removeAttribute("aria-busy");
    this.#by();
    render(this.text, this.turn.content);
    this.#trouble();
    this.foot.replaceChildren(...this.#acts());
    this.ondraw?.();
    return this;
  }

  #by() {
    const { node, capability } = this.turn;
    const shown = `${short(capability)} ${node}`;
    if (this.shownBy === shown) return;
    this.shownBy = shown;
    this.head.replaceChildren(...(node ? [el("span", { class: "model" }, name(short(capability))), el("span", {}, "on ", name(node))] : []));
  }

  #trouble() {
    const { trouble } = this.turn;
    this.trouble.replaceChildren();
    if (!trouble) return;
    const words = [el("p", {}, el("strong", {}, trouble.title), " ", trouble.message)];
    if (trouble.hint) words.push(el("p", { class: "hint" }, trouble.hint));
    this.trouble.append(...words);
  }

  #acts() {
    const { turn } = this;
    const acts = [];
    if (turn.content) acts.push(button("Copy", "copy", () => copy(turn.content), { "aria-label": "Copy this answer" }));
    acts.push(button(turn.trouble ? "Try again" : "Retry", "retry", () => this.onretry(turn)));
    if (turn.requestId) {
      this.opener = button("Why this node", "why", () => this.#toggle(), { "aria-expanded": "false" });
      acts.push(this.opener);
    }
    this.told = el("span", { class: "told" }, told(turn));
    return [...acts, this.told];
  }

  /** What the node says of its speed comes by another way, sometimes a little later. */
  timed(decodeS) {
    this.turn.decodeS = decodeS;
    if (this.told) setText(this.told, told(this.turn));
  }

  async #toggle() {
    const open = this.why.hidden;
    this.why.hidden = !open;
    this.opener.setAttribute("aria-expanded", String(open));
    if (!open || this.explained) return;
    setText(this.why, "Reading the decision");
    try {
      const decision = this.turn.decision ?? (await json(`/api/requests/${encodeURIComponent(this.turn.requestId)}`));
      this.why.replaceChildren(explanation(decision));
      this.explained = true;
    } catch (trouble) {
      this.why.replaceChildren(el("p", {}, `${trouble.message} ${trouble.hint ?? ""}`));
    }
  }
}

/** How it went, in a few words. */
function told(turn) {
  const words = [];
  if (turn.stopped) words.push("stopped");
  if (turn.finish === "length") words.push("cut off at the model's limit");
  if (turn.firstS !== undefined) words.push(`first word ${duration(turn.firstS)}`);
  if (turn.tokens) words.push(`${count(turn.tokens, "token")} in ${duration(turn.totalS)}`);
  if (turn.decodeS > 0 && turn.tokens > 1) words.push(`${number(turn.tokens / turn.decodeS)} tokens/s`);
  if (turn.resumed) words.push(`went on elsewhere ${count(turn.resumed, "time")}${turn.otherModel ? ", with another model" : ""}`);
  return words.join(" · ");
}

export function welcome(node, { title, about, prompts, onpick }) {
  node.replaceChildren(
    el("div", { class: "emblem" }, icon("mark")),
    el("p", { class: "hello" }, title),
    el("p", { class: "about" }, about),
    el("ul", { class: "prompts", "aria-label": "Examples" }, prompts.map((one) => el("li", {}, el("button", { type: "button", onclick: () => onpick(one) }, el("span", { class: "say", dir: "auto" }, one.text), el("span", { class: "for" }, "for ", name(one.label)))))),
  );
}
