// The chat: what is typed goes to the mesh, and what comes back is shown as it comes.

import { answer } from "./answer.js";
import { Trouble } from "./api.js";
import { conversations } from "./conversations.js";
import { byId, el, eachFrame, follow, foreign, icon, say, setText } from "./dom.js";
import { count, duration } from "./format.js";
import { story } from "./story.js";
import { Answer, question, welcome } from "./turns.js";

const PROMPTS = 4;
const PROMPT_CHARACTERS = 110;
// As `atmo ask`: the likeliest answer. Another try shall be another answer.
const FIRST_TEMPERATURE = 0;
const RETRY_TEMPERATURE = 0.8;
// The node tells of an answer's end when it has sent it.
const EVENT_WITHIN_MS = 5000;
const NEAR_END_PX = 80;
const TITLES = {
  unreachable: "The node is not reachable.",
  key: "A key is needed.",
  forbidden: "Not allowed.",
  busy: "Too busy.",
  missing: "Not found.",
  refused: "Not possible.",
  failed: "That failed.",
};

const parts = {};
let running = null;
let pinned = true;

export function startChat() {
  for (const id of ["scroll", "welcome", "turns", "spoken", "jump", "composer", "prompt", "model", "private", "where", "send", "stop"]) parts[id] = byId(id);
  parts.composer.addEventListener("submit", (event) => (event.preventDefault(), submit()));
  parts.prompt.addEventListener("keydown", onKey);
  parts.prompt.addEventListener("input", grow);
  parts.stop.addEventListener("click", stop);
  parts.private.addEventListener("click", () => setPrivate(parts.private.getAttribute("aria-checked") !== "true"));
  parts.scroll.addEventListener("scroll", onScroll, { passive: true });
  parts.jump.addEventListener("click", () => toEnd(true));
  byId("new-chat").addEventListener("click", beginNew);
  byId("forget").addEventListener("click", forgetAll);
  byId("history").addEventListener("click", () => openHistory(!("open" in byId("past").dataset)));
  conversations.addEventListener("change", showPast);
  story.addEventListener("mesh", eachFrame(onMesh));
  showPast();
  showConversation();
}

export function focusPrompt() {
  parts.prompt.focus();
}

// What is typed

function onKey(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  } else if (event.key === "Escape" && running) {
    stop();
  } else if (event.key === "ArrowUp" && !parts.prompt.value) {
    const last = conversations.current.turns.findLast((turn) => turn.role === "user");
    if (last) write(last.content);
  }
}

function grow() {
  parts.prompt.style.blockSize = "auto";
  parts.prompt.style.blockSize = `${Math.min(parts.prompt.scrollHeight, window.innerHeight * 0.4)}px`;
}

function write(text) {
  parts.prompt.value = text;
  grow();
}

function submit() {
  const content = parts.prompt.value.trim();
  if (!content || running) return;
  write("");
  ask(content);
}

function ask(content) {
  conversations.current.turns.push({ role: "user", content });
  parts.welcome.hidden = true;
  parts.turns.append(question(conversations.current.turns.at(-1), edit));
  respond(FIRST_TEMPERATURE);
}

async function respond(temperature) {
  const conversation = conversations.current;
  const turn = { role: "assistant", content: "" };
  const asked = { ...chosen(), messages: messagesOf(conversation), temperature, explain: story.closed };
  conversation.turns.push(turn);
  const shown = new Answer(turn, { onretry: retry }).begin();
  shown.ondraw = () => toEnd(false);
  parts.turns.append(shown.node);
  working(new AbortController());
  toEnd(true);
  const heard = listener();
  try {
    await answer(turn, asked, running.signal, () => (shown.draw(), heard(turn.content)));
  } catch (error) {
    turn.trouble = troubleOf(error, asked);
  } finally {
    working(null);
    shown.end();
    heard(turn.content, true);
    say(turn.trouble ? "" : `${turn.stopped ? "Stopped" : "Answer complete"}, from ${foreign(turn.node)}`);
    timed(shown, conversation);
    conversations.keep(conversation);
  }
}

/** How fast the engine wrote is an event of the node; how fast words came here depends on much else. */
function timed(shown, conversation) {
  const key = `${shown.turn.requestId}-asked`;
  const look = () => {
    const decodeS = story.requests.get(key)?.decodeS;
    if (!decodeS) return;
    clearTimeout(timer);
    story.removeEventListener("request", look);
    shown.timed(decodeS);
    conversations.keep(conversation);
  };
  const timer = setTimeout(() => story.removeEventListener("request", look), EVENT_WITHIN_MS);
  story.addEventListener("request", look);
  look();
}

/** What was said so far. A question whose answer failed is asked again with the next one. */
function messagesOf(conversation) {
  return conversation.turns.filter((turn) => turn.content).map(({ role, content }) => ({ role, content }));
}

function chosen() {
  const option = parts.model.selectedOptions[0];
  return { model: option?.value ?? "", type: option?.dataset.type ?? "", constraints: constraintsNow() };
}

function constraintsNow() {
  if (parts.private.getAttribute("aria-checked") !== "true") return {};
  return parts.where.value ? { data_residency: parts.where.value } : { local_only: true };
}

function working(control) {
  running = control;
  parts.send.hidden = Boolean(control);
  parts.stop.hidden = !control;
  parts.turns.setAttribute("aria-busy", String(Boolean(control)));
}

function stop() {
  running?.abort();
  focusPrompt();
}

/** Ask the same again: this answer and what followed it go. */
function retry(turn) {
  if (running) return;
  const { turns } = conversations.current;
  const again = Boolean(turn.content);
  turns.length = Math.max(0, turns.indexOf(turn));
  showConversation();
  respond(again ? RETRY_TEMPERATURE : FIRST_TEMPERATURE);
  focusPrompt();
}

function edit(turn) {
  if (running) return;
  const { turns } = conversations.current;
  turns.length = Math.max(0, turns.indexOf(turn));
  showConversation();
  write(turn.content);
  focusPrompt();
}

/** Tell those who listen each sentence when it is complete. */
function listener() {
  parts.spoken.replaceChildren();
  let told = 0;
  return (text, last = false) => {
    const rest = text.slice(told);
    const end = last ? rest.length : Math.max(rest.lastIndexOf(". "), rest.lastIndexOf("\n"), rest.lastIndexOf("? "), rest.lastIndexOf("! ")) + 1;
    const words = rest.slice(0, end).replace(/[*_`#|>]/g, "").trim();
    told += end;
    if (words) parts.spoken.append(el("p", {}, words));
  };
}

function troubleOf(error, asked) {
  if (!(error instanceof Trouble)) return { title: "The page failed.", message: String(error?.message ?? error), hint: "" };
  const title = TITLES[error.kind];
  const message = error.message === title ? "" : error.message;
  let { hint } = error;
  if (error.kind === "unreachable") hint = "Nothing is lost: try again when it is back.";
  else if (error.kind === "busy" && error.afterS) hint = `Try again in ${duration(Math.ceil(error.afterS))}.`;
  else if (error.code === "no_route" && (asked.constraints.local_only || asked.constraints.data_residency)) hint = "The conversation is private: nobody else was asked. Turn that off, or serve a model there.";
  else if (error.code === "context_length_exceeded") hint = "Begin a new chat, or choose a model with a larger context.";
  return { title, message, hint };
}

// Where it goes

function setPrivate(on) {
  parts.private.setAttribute("aria-checked", String(on));
  parts.where.hidden = !on;
}

function onMesh() {
  showModels();
  showPlaces();
  if (!parts.welcome.hidden) showWelcome();
}

function showModels() {
  const kinds = { chat: "Chat", classification: "Classifiers" };
  const known = (story.models ?? []).filter((model) => kinds[model.atmo?.type]);
  const signature = JSON.stringify(known.map((model) => [model.id, model.atmo.type]));
  if (parts.model.dataset.signature === signature) return;
  parts.model.dataset.signature = signature;
  const before = parts.model.value;
  const groups = Object.entries(kinds).map(([type, label]) => {
    const options = known.filter((model) => model.atmo.type === type).map((model) => el("option", { value: model.id, "data-type": type === "chat" ? null : type }, foreign(model.id, 60)));
    return options.length ? el("optgroup", { label }, options) : null;
  });
  parts.model.replaceChildren(...[el("option", { value: "" }, "Auto"), ...groups].filter(Boolean));
  parts.model.value = [...parts.model.options].some((option) => option.value === before) ? before : "";
}

/** Labels by which nodes say where they are. */
function showPlaces() {
  const homes = [...new Set(story.nodes.map((node) => node.labels?.residency).filter(Boolean))].sort();
  const signature = JSON.stringify(homes);
  if (parts.where.dataset.signature === signature) return;
  parts.where.dataset.signature = signature;
  const before = parts.where.value;
  parts.where.replaceChildren(el("option", { value: "" }, "on this node only"), ...homes.map((home) => el("option", { value: home }, `in ${foreign(home, 40)} only`)));
  parts.where.value = homes.includes(before) ? before : "";
}

// What is shown

function showConversation() {
  const { turns } = conversations.current;
  parts.turns.replaceChildren(...turns.map((turn) => (turn.role === "user" ? question(turn, edit) : new Answer(turn, { onretry: retry }).end().node)));
  parts.spoken.replaceChildren();
  parts.welcome.hidden = turns.length > 0;
  if (!turns.length) showWelcome();
  toEnd(true);
}

function showWelcome() {
  const prompts = examples();
  const nodes = story.report?.nodes ?? [];
  const signature = JSON.stringify([prompts.map((one) => one.text), nodes.map((node) => node.name), story.closed]);
  if (parts.welcome.dataset.signature === signature) return;
  parts.welcome.dataset.signature = signature;
  welcome(parts.welcome, { title: "Ask your machines", about: aboutMesh(nodes, prompts), prompts, onpick });
}

function aboutMesh(nodes, prompts) {
  if (!story.models) return "Looking who is there.";
  if (!(story.models ?? []).some((model) => model.atmo?.type === "chat")) return "No node here serves a chat model yet. `atmo node start --serve FILE.gguf` does.";
  if (story.closed) return "Your key is for some models; ask them.";
  if (nodes.length === 1) return `${foreign(nodes[0].name, 60)} answers on its own. What you write stays on it.`;
  const names = nodes.slice(0, 3).map((node) => foreign(node.name, 40));
  const more = nodes.length - names.length;
  return `${count(nodes.length, "node")} answer as one: ${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}. Each prompt goes where it fits best.`;
}

/** Requests that suit what is served, one capability after the other. */
function examples() {
  const served = (story.models ?? []).filter((model) => ["chat", "classification"].includes(model.atmo?.type) && model.atmo.examples?.length);
  const found = [];
  for (let round = 0; round < PROMPTS && found.length < PROMPTS; round += 1) {
    for (const model of served) {
      const text = foreign(model.atmo.examples[round], 400);
      if (text && text.length <= PROMPT_CHARACTERS && found.length < PROMPTS) found.push({ text, model: model.id, type: model.atmo.type, label: model.id });
    }
  }
  return found;
}

/** A classifier has to be named; a chat is found by the text. */
function onpick({ text, model, type }) {
  parts.model.value = type === "chat" ? "" : model;
  ask(text);
  focusPrompt();
}

function beginNew() {
  stop();
  openHistory(false);
  conversations.begin();
  showConversation();
  location.hash = "#/chat";
  focusPrompt();
}

function forgetAll() {
  if (!conversations.all.length || !confirm("Delete all conversations that this browser keeps?")) return;
  stop();
  conversations.deleteAll();
  showConversation();
  say("All conversations are deleted");
}

/** On a narrow screen the list of conversations comes over the page. */
function openHistory(open) {
  byId("past").toggleAttribute("data-open", open);
  byId("history").setAttribute("aria-expanded", String(open));
}

function showPast() {
  follow(
    byId("past-list"),
    conversations.all,
    (one) => one.id,
    (one) => pastItem(one),
    (node, one) => {
      setText(node.firstChild, foreign(one.title, 80) || "Untitled");
      node.firstChild.setAttribute("aria-current", String(one.id === conversations.current.id));
    },
  );
  byId("forget").hidden = !conversations.all.length;
  setText(byId("past-note"), conversations.all.length ? "Kept in this browser only." : "Nothing yet. They are kept in this browser only.");
}

function pastItem({ id, title }) {
  const open = el("button", { type: "button", class: "past-open", dir: "auto", onclick: () => openPast(id) });
  const remove = el("button", { type: "button", class: "ghost icon-only small", "aria-label": `Delete the conversation ${foreign(title, 80)}`, title: "Delete", onclick: () => removePast(id) }, icon("trash"));
  return el("li", {}, open, remove);
}

function openPast(id) {
  stop();
  openHistory(false);
  conversations.open(id);
  showConversation();
  location.hash = "#/chat";
  focusPrompt();
}

function removePast(id) {
  const current = conversations.current.id === id;
  if (current) stop();
  conversations.delete(id);
  if (current) showConversation();
  byId("new-chat").focus();
}

// The end of the text stays in sight, unless one has scrolled away from it.

function onScroll() {
  const { scrollTop, scrollHeight, clientHeight } = parts.scroll;
  pinned = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  parts.jump.hidden = pinned;
}

function toEnd(always) {
  if (always) pinned = true;
  if (pinned) parts.scroll.scrollTop = parts.scroll.scrollHeight;
}
