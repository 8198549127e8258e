// The page put together: sections by the address, theme, key, and whether the node is there.

import { keepKey, onKeyWanted } from "./api.js";
import { focusPrompt, startChat } from "./chat.js";
import { byId, foreign, say, setText } from "./dom.js";
import { startDrawer } from "./drawer.js";
import { count } from "./format.js";
import { startMesh } from "./mesh.js";
import { startModels } from "./models.js";
import { startRequests } from "./requests.js";
import { story } from "./story.js";

const TITLES = { chat: "Chat", mesh: "Mesh", models: "Models", requests: "Requests" };
const THEMES = ["", "light", "dark"];

onKeyWanted(askForKey);
startDrawer();
startChat();
const views = { chat: () => {}, mesh: startMesh(), models: startModels(), requests: startRequests() };
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which section is shown
  byId("main").focus();
});
addEventListener("hashchange", () => go(true));
go(false);
startTheme();
story.addEventListener("change", showConnection);
story.start();
document.documentElement.dataset.ready = "";

function go(moved) {
  const [section, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const shown = section in views ? section : "chat";
  const other = byId(`view-${shown}`).hidden;
  for (const name of Object.keys(views)) byId(`view-${name}`).hidden = name !== shown;
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.hash === `#/${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.section = shown;
  document.title = `${TITLES[shown]} · Atmosphere`;
  if (other && shown === "chat") matchMedia("(pointer: fine)").matches && focusPrompt();
  else if (other && moved) byId(`${shown}-title`).focus({ preventScroll: true });
  views[shown](rest.join("/"));
}

// Theme: as the system, until one is chosen.

function startTheme() {
  const chosen = () => document.documentElement.dataset.theme ?? "";
  const shown = () => {
    const label = `Theme: ${chosen() || "as the system"}`;
    byId("theme").setAttribute("aria-label", label);
    byId("theme").title = label;
  };
  byId("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem("atmo.theme", next);
    } catch {
      // it lasts as long as the page
    }
    shown();
    say(byId("theme").title);
  });
  shown();
}

function showConnection() {
  const { trouble, report, closed } = story;
  const away = Boolean(trouble);
  const text = away ? (trouble.kind === "unreachable" ? "Node not reachable, retrying" : foreign(`${trouble.message} ${trouble.hint ?? ""}`, 300)) : "";
  setText(byId("banner"), text);
  byId("pulse").dataset.state = away ? "away" : report || closed ? "well" : "waiting";
  const own = story.own;
  setText(byId("pulse-text"), away ? "Not reachable" : own ? `${foreign(own.name, 30)} · ${count(report.nodes.length, "node")}` : closed ? "Connected" : "Connecting");
}

/** A dialog, until a key is given. wrong: one was given, and it was refused. */
function askForKey(wrong) {
  const dialog = byId("key-dialog");
  setText(byId("key-title"), wrong ? "This key is not accepted" : "This node asks for a key");
  byId("key").value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    const given = (event) => {
      event.preventDefault();
      const key = byId("key").value.trim();
      if (!key) return;
      byId("key-form").removeEventListener("submit", given);
      dialog.removeEventListener("close", again);
      keepKey(key);
      dialog.close();
      resolve();
    };
    const again = () => dialog.showModal(); // there is nothing to see without one
    byId("key-form").addEventListener("submit", given);
    dialog.addEventListener("close", again);
  });
}
