// Elements from data. Text becomes text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";
// Characters that show nothing but change how others are shown: controls, and those that turn the direction of writing.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** An element. `facts`: attributes; `class`, and handlers as `onclick` and the like, are taken as such. */
export function el(name, facts = {}, ...children) {
  return filled(document.createElement(name), facts, children);
}

export function svg(name, facts = {}, ...children) {
  return filled(document.createElementNS(SVG, name), facts, children);
}

function filled(made, facts, children) {
  for (const [key, value] of Object.entries(facts)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
}

/** A button with an icon and words. */
export function button(label, iconName, onclick, facts = {}) {
  return el("button", { type: "button", class: "ghost small", onclick, ...facts }, iconName ? icon(iconName) : null, label);
}

/** What another node or a model says, on one line: nothing unseen in it, and no longer than `most`. */
export function foreign(text, most = 200) {
  const clean = String(text ?? "").replace(UNSEEN, "").replace(/\s+/g, " ").trim();
  return clean.length > most ? `${clean.slice(0, most - 1)}…` : clean;
}

/** The same as an element that keeps its direction of writing to itself. */
export function name(text, facts = {}) {
  return el("bdi", facts, foreign(text));
}

export function byId(id) {
  return document.getElementById(id);
}

/** Set the text if it is another one, so that nothing is announced or laid out anew for nothing. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Make `parent`'s children follow `items`, keeping the element of each key: focus and selection stay where they are. */
export function follow(parent, items, keyOf, make, update) {
  const known = (parent.followed ??= new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, node] of known) {
    if (!wanted.has(key)) {
      node.remove();
      known.delete(key);
    }
  }
  let after = null;
  for (const item of items) {
    const key = keyOf(item);
    let node = known.get(key);
    if (!node) {
      node = make(item);
      known.set(key, node);
    }
    update?.(node, item);
    const place = after ? after.nextSibling : parent.firstChild;
    if (place !== node) parent.insertBefore(node, place);
    after = node;
  }
}

/** Call `work` once in the next frame, however often it is asked for. */
export function eachFrame(work) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      work();
    });
  };
}

/** Tell those who do not see the page. */
export function say(text) {
  byId("say").textContent = text;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain HTTP from another machine there is no clipboard to write to; the old way works.
    const field = el("textarea", { class: "sr", readonly: true });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say("Copied");
}
