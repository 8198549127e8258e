// Conversations, kept in this browser and nowhere else. Where the browser keeps nothing, they last as long as the page.

const KEPT = "atmo.conversations";
const MOST = 100;
const TITLE = 80;

class Conversations extends EventTarget {
  #all = read();
  current = fresh();

  constructor() {
    super();
    // Another tab has written.
    addEventListener("storage", (event) => {
      if (event.key !== KEPT && event.key !== null) return;
      this.#all = read();
      this.#changed();
    });
  }

  get all() {
    return this.#all;
  }

  begin() {
    this.current = fresh();
    this.#changed();
  }

  open(id) {
    const found = this.#all.find((one) => one.id === id);
    if (!found) return;
    this.current = structuredClone(found);
    this.#changed();
  }

  /** Keep this one, the newest first; unless it was deleted while its last answer came. */
  keep(now) {
    if (!now.turns.length || now.deleted) return;
    now.at = Date.now();
    now.title ||= now.turns[0].content.trim().replace(/\s+/g, " ").slice(0, TITLE);
    this.#all = [structuredClone(now), ...read().filter((one) => one.id !== now.id)].slice(0, MOST);
    this.#write();
    this.#changed();
  }

  delete(id) {
    this.#all = read().filter((one) => one.id !== id);
    this.#write();
    if (this.current.id === id) this.#leave();
    this.#changed();
  }

  deleteAll() {
    this.#all = [];
    try {
      localStorage.removeItem(KEPT);
    } catch {
      // nothing was kept
    }
    this.#leave();
    this.#changed();
  }

  #leave() {
    this.current.deleted = true;
    this.current = fresh();
  }

  /** The oldest go where there is no room for all. */
  #write() {
    for (let most = this.#all.length; ; most = Math.floor(most / 2)) {
      try {
        localStorage.setItem(KEPT, JSON.stringify(this.#all.slice(0, most)));
        return;
      } catch {
        if (!most) return; // nothing may be kept here
      }
    }
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

function fresh() {
  return { id: crypto.getRandomValues(new Uint32Array(2)).join("-"), title: "", at: 0, turns: [] };
}

/** What is kept, as far as it has the right shape: others may have written there. */
function read() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return Array.isArray(found) ? found.filter((one) => typeof one?.id === "string" && Array.isArray(one.turns)) : [];
  } catch {
    return [];
  }
}

export const conversations = new Conversations();
