// How the page talks to the node. Every failure is a `Trouble` with words for people.

const KEY = "atmo.key";
// A node that says nothing for so long is not reachable. The first word of an answer may take longer.
const SILENCE_MS = 8000;

/** kind: unreachable, key, forbidden, missing, busy, refused or failed. */
export class Trouble extends Error {
  constructor(kind, message, { hint = "", code = "", afterS = 0 } = {}) {
    super(message);
    this.kind = kind;
    this.hint = hint;
    this.code = code;
    this.afterS = afterS;
  }
}

const KINDS = { 401: "key", 403: "forbidden", 404: "missing", 429: "busy" };
let wanted = null;
/** Asks for a key and gives a promise of it; main.js sets it. */
let askForKey = async () => "";

export function onKeyWanted(ask) {
  askForKey = ask;
}

export function keptKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return kept;
  }
}

let kept = "";

export function keepKey(key) {
  kept = key;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // no storage: it is kept for as long as the page
  }
}

/** A reply with a good status. patient: wait for its begin as long as it takes. Raises Trouble, or AbortError. */
export async function call(path, { body, signal, patient = false } = {}) {
  for (;;) {
    const key = keptKey();
    const response = await send(path, body, signal, patient, key);
    if (response.ok) return response;
    if (response.status !== 401) throw await troubleOf(response);
    response.body?.cancel();
    // While one asks for a key, others wait for the same one; and one may have been given meanwhile.
    if (keptKey() === key) await (wanted ??= askForKey(Boolean(key)).finally(() => (wanted = null)));
    signal?.throwIfAborted();
  }
}

async function send(path, body, signal, patient, key) {
  const limit = patient ? null : new AbortController();
  const timer = limit && setTimeout(() => limit.abort(), SILENCE_MS);
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  const signals = [signal, limit?.signal].filter(Boolean);
  try {
    return await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal: signals.length ? AbortSignal.any(signals) : undefined,
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Trouble("unreachable", "The node is not reachable.");
  } finally {
    clearTimeout(timer);
  }
}

async function troubleOf(response) {
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch {
    // not the node's own words: the status has to do
  }
  const kind = KINDS[response.status] ?? (response.status < 500 ? "refused" : "failed");
  const afterS = Number(response.headers.get("retry-after-ms") ?? 0) / 1000;
  return new Trouble(kind, String(told.message ?? `The node answered with status ${response.status}.`), {
    hint: String(told.hint ?? ""),
    code: String(told.code ?? ""),
    afterS,
  });
}

export async function json(path, options) {
  const response = await call(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new Trouble("unreachable", "The node broke off its answer.");
  }
}

/** The lines of a stream as they come. Raises Trouble where it breaks off. */
async function* linesOf(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Trouble("unreachable", "The node broke off in the middle.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** One JSON object a line. */
export async function* objects(response, signal) {
  for await (const line of linesOf(response, signal)) {
    if (line.trim()) yield JSON.parse(line);
  }
}

/** The data of server-sent events, up to `[DONE]`. Raises Trouble for an error that is told within. */
export async function* chunks(response, signal) {
  for await (const line of linesOf(response, signal)) {
    if (!line.startsWith("data:")) continue;
    const data = line.slice(5).trim();
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Trouble("failed", String(chunk.error.message), { code: String(chunk.error.code ?? "") });
    yield chunk;
  }
  throw new Trouble("unreachable", "The node broke off in the middle of its answer.");
}

/** `ms` later, or as soon as it is aborted. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
