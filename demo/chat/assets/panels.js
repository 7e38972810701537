// What is waited for, and what was noted. A tab's content is there only while somebody looks at it.
import { clock } from "./stage.js";
const $ = (part) => document.querySelector(part);
const make = (tag, text, rest = {}) => Object.assign(document.createElement(tag), { textContent: text, ...rest });

export class Panels {
  constructor(say) {
    Object.assign(this, { say, rows: [], notes: new Map(), now: {}, query: "" });
    setInterval(() => { if (this.fresh("#watches")) this.drawWatches(); if (this.fresh("#notes")) this.drawNotes(); }, 300);
    document.addEventListener("input", ({ target }) => {
      if (target.id === "notes-find") { this.query = target.value.toLowerCase(); this.drawNotes(); }
      if (target.id === "narrate") say("narrate", { on: target.checked });
    });
    document.addEventListener("keydown", (event) => this.step(event));
  }
  fresh(part) {
    const root = $(part);
    if (!root || root.dataset.drawn) return false;
    root.dataset.drawn = "yes";
    return true;
  }
  clear() { this.rows = []; this.notes.clear(); this.drawWatches(); this.drawNotes(); }
  state(state) {
    this.now = state;
    if ($("#narrate")) $("#narrate").checked = !!state.narrating;
    if ($("#no-notes")) this.drawEmpty();
  }
  watches(rows) { this.rows = rows; this.drawWatches(); }
  note(entries) {
    const fresh = entries.filter(({ kind }) => kind === "note" || kind === "narration");
    for (const { id, html } of fresh) this.notes.set(id, html);
    if (fresh.length) this.drawNotes();
  }
  drawWatches() {
    const root = $("#watches");
    if (!root) return;
    root.replaceChildren(...this.rows.map((row) => this.watch(row)));
    $("#no-watches").hidden = this.rows.length > 0;
  }
  watch({ number, condition, paused, probability, trouble, firings }) {
    const line = make("li", "", { className: paused ? "paused" : "" });
    const bar = make("meter", "", { min: 0, max: 1, value: probability ?? 0, title: "how sure the model is now" });
    const rest = make("button", paused ? "Go on" : "Pause", { type: "button" });
    rest.addEventListener("click", () => this.say("watch_pause", { entry: number, on: !paused }));
    const off = make("button", "Remove", { type: "button" });
    off.addEventListener("click", () => this.say("watch_remove", { entry: number }));
    const history = make("div", "", { className: "firings" });
    for (const [run, at] of firings.slice(-12)) {
      const seen = make("button", "", { type: "button", className: "moment" });
      Object.assign(seen.dataset, { run, at });
      seen.append(Object.assign(new Image(), { src: `/chat/picture/${run}/${at.toFixed(2)}`, alt: "" }), make("span", clock(at)));
      history.append(seen);
    }
    line.append(make("b", condition), bar, rest, off, make("em", trouble), history);
    return line;
  }
  drawNotes() {
    const root = $("#notes");
    if (!root) return;
    root.dataset.drawn = "yes";
    const shell = document.createElement("template");
    shell.innerHTML = [...this.notes.values()].join("");
    const lines = [...shell.content.children].filter((line) => line.textContent.toLowerCase().includes(this.query));
    for (const line of lines) line.id = `${line.id}-noted`;
    const at = this.moments().indexOf(document.activeElement);
    root.replaceChildren(...lines);
    this.reach(Math.max(at, 0));
    if (at >= 0) this.moments()[at]?.focus();
    this.drawEmpty();
  }
  // The notes are one tab stop, however many they are; arrows lead from one to the next.
  moments() { return [...document.querySelectorAll("#notes .moment")]; }
  reach(at) { this.moments().forEach((moment, index) => { moment.tabIndex = index === at ? 0 : -1; }); }
  step(event) {
    const moments = this.moments();
    const at = moments.indexOf(event.target);
    const next = at + ({ ArrowDown: 1, ArrowUp: -1 }[event.key] ?? 0);
    if (at < 0 || next === at || !moments[next]) return;
    event.preventDefault();
    this.reach(next);
    moments[next].focus();
  }
  drawEmpty() {
    const empty = $("#no-notes");
    empty.hidden = this.notes.size > 0;
    empty.textContent = this.now.notes ? "Nothing was noted yet." : "This server takes no notes (streamvlm chat --notes).";
  }
}
