// Markdown as elements. Nothing is ever turned from text into markup: each element is made by name, from the few below,
// and everything else a model writes, HTML included, is a text node. Links go to http, https and mailto only, pictures
// are shown as links. Work and depth are bounded, whatever the text.
//
// A text that is being written is rendered again and again; only blocks that differ from last time are made anew.

import { button, copy, el } from "./dom.js";

const MAX_DEPTH = 6;
const MAX_OPEN = 32;
const MAX_ADDRESS = 1000;
// No pattern has two ways to match the same text, so none takes longer than the text is long.
const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^( {0,7})([-*+]|\d{1,9}[.)])(\s+|$)/;
const QUOTE = /^ {0,3}> ?/;

/** Show `text` in `place`, keeping the elements of blocks that did not change. */
export function render(place, text) {
  const made = blocksOf(String(text).replace(/\r\n?/g, "\n").split("\n"), 0);
  const known = place.blocks ?? [];
  made.forEach((block, at) => {
    if (known[at]?.source === block.source) {
      block.node = known[at].node;
      return;
    }
    if (known[at]?.kind === "code" && block.kind === "code" && known[at].language === block.language) {
      block.node = known[at].node;
      block.node.querySelector("code").textContent = block.text;
      return;
    }
    block.node = NODES[block.kind](block);
    if (known[at]) known[at].node.replaceWith(block.node);
    else place.append(block.node);
  });
  for (const block of known.slice(made.length)) block.node.remove();
  place.blocks = made;
}

// Blocks. Each has a kind, and a source by which it is known again.

function blocksOf(lines, depth) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [block, next] = blockAt(lines, at, depth);
    block.source = `${block.kind}:${lines.slice(at, next).join("\n")}`;
    if (block.kind === "code") block.source += block.open ? " open" : "";
    found.push(block);
    at = next;
  }
  return found;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", level: heading[1].length, text: unmarked(heading[2]) }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (depth < MAX_DEPTH && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < MAX_DEPTH && ITEM.test(line)) return list(lines, at, depth);
  if (line.includes("|") && isTableRule(lines[at + 1] ?? "")) return table(lines, at);
  return paragraph(lines, at);
}

/** `## Title ##` is the same as `## Title`. */
function unmarked(title) {
  const bare = title.trim();
  let end = bare.length;
  while (bare[end - 1] === "#") end -= 1;
  return end === bare.length || bare[end - 1] === " " ? bare.slice(0, end).trim() : bare;
}

function isTableRule(line) {
  return /^[\s|:-]+$/.test(line) && line.includes("-") && cells(line).every((cell) => /^:?-+:?$/.test(cell));
}

function code(lines, at, [, indent, mark, language]) {
  const end = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}\\s*$`);
  let next = at + 1;
  while (next < lines.length && !end.test(lines[next])) next += 1;
  const strip = new RegExp(`^ {0,${indent.length}}`);
  const text = lines.slice(at + 1, next).map((line) => line.replace(strip, "")).join("\n");
  return [{ kind: "code", text, language: language.trim().split(/\s/)[0], open: next === lines.length }, next + 1];
}

function quote(lines, at, depth) {
  let next = at;
  while (next < lines.length && lines[next].trim() && (QUOTE.test(lines[next]) || !startsBlock(lines[next]))) next += 1;
  const inner = lines.slice(at, next).map((line) => line.replace(QUOTE, ""));
  return [{ kind: "quote", blocks: blocksOf(inner, depth + 1) }, next];
}

/** Items of one kind, each with the lines that are set in below it. */
function list(lines, at, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  let next = at;
  while (next < lines.length) {
    const head = ITEM.exec(lines[next]);
    if (!head || head[1].length > indent.length + 1 || /\d/.test(head[2]) !== ordered || RULE.test(lines[next])) break;
    const width = head[1].length + head[2].length + Math.min(Math.max(head[3].length, 1), 4);
    const inner = [lines[next].slice(head[0].length)];
    next += 1;
    while (next < lines.length && belongs(lines, next, width, head[1].length)) {
      inner.push(lines[next].replace(new RegExp(`^ {0,${width}}`), ""));
      next += 1;
    }
    items.push(inner);
    while (next < lines.length && !lines[next].trim() && ITEM.test(lines[next + 1] ?? "")) next += 1;
  }
  const loose = items.some((inner) => inner.slice(0, -1).some((line) => !line.trim()));
  const start = ordered ? Number.parseInt(mark, 10) : 1;
  return [{ kind: "list", ordered, start, loose, items: items.map((inner) => blocksOf(inner, depth + 1)) }, next];
}

/** Does this line go on with an item whose text begins at column `width`? */
function belongs(lines, at, width, indent) {
  const line = lines[at];
  const lead = line.length - line.trimStart().length;
  if (!line.trim()) {
    const after = lines[at + 1] ?? "";
    return Boolean(after.trim()) && after.length - after.trimStart().length >= Math.min(width, indent + 2);
  }
  if (lead >= Math.min(width, indent + 2)) return true;
  return Boolean(lines[at - 1].trim()) && !startsBlock(line);
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function table(lines, at) {
  const aligned = cells(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : "start"));
  let next = at + 2;
  while (next < lines.length && lines[next].includes("|") && lines[next].trim()) next += 1;
  const rows = lines.slice(at + 2, next).map((line) => cells(line).slice(0, aligned.length));
  return [{ kind: "table", head: cells(lines[at]).slice(0, aligned.length), aligned, rows }, next];
}

function cells(line) {
  const bare = line.trim();
  const inner = bare.slice(bare.startsWith("|") ? 1 : 0, bare.length > 1 && bare.endsWith("|") ? -1 : undefined);
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function paragraph(lines, at) {
  let next = at + 1;
  while (next < lines.length && lines[next].trim() && !interrupts(lines[next])) next += 1;
  return [{ kind: "paragraph", text: lines.slice(at, next).map((line) => line.replace(/^\s+/, "")).join("\n") }, next];
}

/** A numbered item does so only if it is the first: a year at the begin of a line is no list. */
function interrupts(line) {
  const item = ITEM.exec(line);
  if (item) return Boolean(item[3]) && (!/\d/.test(item[2]) || Number.parseInt(item[2], 10) === 1);
  return startsBlock(line);
}

const NODES = {
  heading: (block) => el(`h${Math.min(6, block.level + 2)}`, {}, inline(block.text)),
  rule: () => el("hr"),
  paragraph: (block) => el("p", {}, inline(block.text)),
  quote: (block) => el("blockquote", {}, block.blocks.map((inner) => NODES[inner.kind](inner))),
  list: (block) =>
    el(block.ordered ? "ol" : "ul", { start: block.start === 1 ? null : block.start }, block.items.map((item) => el("li", {}, itemNodes(item, block.loose)))),
  table: (block) =>
    el("div", { class: "wide", role: "group", "aria-label": "Table", tabindex: 0 }, el("table", {}, el("thead", {}, row("th", block.head, block)), el("tbody", {}, block.rows.map((cellsOf) => row("td", cellsOf, block))))),
  code: (block) => codeNode(block),
};

/** In a tight list an item's text stands there without a paragraph of its own. */
function itemNodes(blocks, loose) {
  return blocks.flatMap((block) => (block.kind === "paragraph" && !loose ? inline(block.text) : [NODES[block.kind](block)]));
}

function row(kind, texts, block) {
  return el("tr", {}, texts.map((text, at) => el(kind, { class: `to-${block.aligned[at]}`, scope: kind === "th" ? "col" : null }, inline(text))));
}

function codeNode(block) {
  const language = block.language.replace(/[^\w+#.-]/g, "").slice(0, 20);
  const text = el("code", {}, block.text);
  const head = el("div", { class: "code-head" }, el("span", {}, language || "text"), button("Copy", "copy", () => copy(text.textContent), { "aria-label": "Copy this code" }));
  const body = el("pre", { tabindex: 0, role: "group", "aria-label": language ? `Code, ${language}` : "Code" }, text);
  return el("div", { class: "code" }, head, body);
}

// Text with emphasis, code and links in it: one pass with two stacks, after CommonMark's appendix on parsing.

export function inline(text) {
  const items = [];
  items.brackets = [];
  let at = 0;
  let plain = "";
  const flush = () => {
    if (plain) items.push(plain);
    plain = "";
  };
  while (at < text.length) {
    const read = READERS[text[at]]?.(text, at, items, flush) ?? wordAt(text, at, items, flush);
    if (read) {
      at = read;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  flush();
  return emphasised(items.map((item) => item.bracket ?? item));
}

const READERS = {
  "\\": (text, at, items, flush) => {
    const next = text[at + 1] ?? "";
    if (next === "\n") return brokenAt(items, flush, at + 2);
    if (!/[!-/:-@[-`{-~]/.test(next)) return 0;
    flush();
    items.push(next);
    return at + 2;
  },
  "\n": (text, at, items, flush) => brokenAt(items, flush, at + 1),
  "`": codeAt,
  "*": runAt,
  _: runAt,
  "~": runAt,
  "[": (text, at, items, flush) => bracketAt(items, flush, "[", at),
  "!": (text, at, items, flush) => (text[at + 1] === "[" ? bracketAt(items, flush, "![", at) : 0),
  "]": closedAt,
  "<": addressAt,
};

function bracketAt(items, flush, bracket, at) {
  flush();
  items.brackets.push(items.length);
  items.push({ bracket });
  return at + bracket.length;
}

/** Models end a line where they want it to end. */
function brokenAt(items, flush, next) {
  flush();
  items.push(el("br"));
  return next;
}

function codeAt(text, at, items, flush) {
  const mark = /^`+/.exec(text.slice(at, at + 100))[0];
  let end = text.indexOf(mark, at + mark.length);
  while (end >= 0 && (text[end + mark.length] === "`" || text[end - 1] === "`")) end = text.indexOf(mark, end + mark.length + 1);
  flush();
  if (end < 0) {
    items.push(mark);
    return at + mark.length;
  }
  const inner = text.slice(at + mark.length, end).replaceAll("\n", " ");
  items.push(el("code", {}, /^ .*[^ ].* $/.test(inner) ? inner.slice(1, -1) : inner));
  return end + mark.length;
}

function runAt(text, at, items, flush) {
  const mark = text[at];
  let end = at;
  while (text[end] === mark && end - at < 100) end += 1;
  if (mark === "~" && end - at !== 2) return 0;
  const before = text[at - 1] ?? " ";
  const after = text[end] ?? " ";
  const solid = (one) => /[^\s\p{P}\p{S}]/u.test(one);
  const opens = !/\s/.test(after) && (solid(after) || !solid(before));
  const closes = !/\s/.test(before) && (solid(before) || !solid(after));
  const inWord = mark === "_" && opens && closes;
  flush();
  items.push({ mark, count: end - at, opens: opens && !(inWord && solid(before)), closes: closes && !(inWord && solid(after)) });
  return end;
}

function closedAt(text, at, items, flush) {
  if (!items.brackets.length) return 0;
  flush();
  const open = items.brackets.pop();
  const image = items[open].bracket === "![";
  const target = /^\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+["'][^"'\n]*["'])?\s*\)/.exec(text.slice(at + 1, at + 1 + MAX_ADDRESS));
  const inner = items.splice(open + 1);
  items.pop();
  if (!target) {
    items.push(image ? "![" : "[");
    for (const item of inner) items.push(item);
    items.push("]");
    return at + 1;
  }
  const shown = emphasised(inner);
  items.push(linkTo(target[1], shown.length ? shown : [target[1]], image));
  return at + 1 + target[0].length;
}

function addressAt(text, at, items, flush) {
  const found = /^<((?:https?:\/\/|mailto:)[^\s<>]{1,500})>/.exec(text.slice(at, at + 520));
  if (!found) return 0;
  flush();
  items.push(linkTo(found[1], [found[1]]));
  return at + found[0].length;
}

/** An address that stands in the text as it is. */
function wordAt(text, at, items, flush) {
  if (text[at] !== "h" || /\w/.test(text[at - 1] ?? " ") || items.brackets.length) return 0;
  const found = /^https?:\/\/[^\s<>"'`*\]]{1,500}/.exec(text.slice(at, at + 520));
  if (!found) return 0;
  const address = found[0].replace(/[.,;:!?)]+$/, (end) => (end[0] === ")" && found[0].includes("(") ? ")" : ""));
  flush();
  items.push(linkTo(address, [address]));
  return at + address.length;
}

function linkTo(address, shown, image = false) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    // no address of its own: a relative one would be one of this node's
  }
  const children = image ? ["Picture: ", ...shown] : shown;
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return el("span", { class: "no-link" }, children);
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow ugc" }, children);
}

/** Pairs of marks become elements; marks without a partner are text. */
function emphasised(items) {
  const out = [];
  const open = [];
  for (const item of items) {
    if (!item.mark) {
      out.push(item);
      continue;
    }
    let left = item.count;
    while (item.closes && left) {
      const at = open.findLastIndex((one) => one.mark === item.mark);
      if (at < 0) break;
      const opener = open[at];
      const used = item.mark === "~" ? 2 : Math.min(2, left, opener.count);
      const inner = out.splice(opener.place).map(textOf);
      inner.shift();
      open.length = at;
      opener.count -= used;
      left -= used;
      if (opener.count) {
        out.push(opener);
        open.push(opener);
      }
      out.push(el(item.mark === "~" ? "del" : used === 2 ? "strong" : "em", {}, inner));
    }
    if (!left) continue;
    const kept = { mark: item.mark, count: left, place: out.length };
    out.push(kept);
    if (item.opens && open.length < MAX_OPEN) open.push(kept);
  }
  return out.map(textOf);
}

function textOf(item) {
  return item.mark ? item.mark.repeat(item.count) : item;
}
