// A sheet at the side for one thing in full. The browser keeps the focus in it and gives it back.

import { byId, setText } from "./dom.js";

export function startDrawer() {
  const drawer = byId("drawer");
  byId("drawer-close").addEventListener("click", () => drawer.close());
  drawer.addEventListener("click", (event) => event.target === drawer && drawer.close());
}

export function openDrawer(title, body) {
  setText(byId("drawer-title"), title);
  byId("drawer-body").replaceChildren(...body.filter(Boolean));
  if (!byId("drawer").open) byId("drawer").showModal();
}
