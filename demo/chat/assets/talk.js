// The conversation. The server renders every entry; here it only finds its place.
export class Talk {
  constructor(say) {
    this.say = say;
    this.root = document.querySelector("#transcript");
    document.querySelector("#stop-all").addEventListener("click", () => say("stop_all"));
  }
  clear() { this.root.querySelectorAll(".entry").forEach((entry) => entry.remove()); this.greet(); }
  greet() { document.querySelector("#nothing-said").hidden = !!this.root.querySelector(".entry.question"); }
  draw(entries) {
    const low = this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < 60;
    const asked = entries.some(({ id }) => !document.getElementById(id));
    for (const { id, html } of entries) {
      const old = document.getElementById(id);
      const shell = document.createElement("template");
      shell.innerHTML = html;
      const entry = shell.content.firstElementChild;
      if (old) this.renew(old, entry); else this.root.append(entry);
    }
    this.greet();
    if (low || asked) this.root.scrollTop = this.root.scrollHeight;
  }
  // Keep the focus where it is when an entry is drawn anew under it.
  renew(old, entry) {
    const held = old.contains(document.activeElement) ? document.activeElement.dataset.op : null;
    old.replaceWith(entry);
    if (held !== null) entry.querySelector("[data-op]")?.focus();
  }
  state({ open }) { document.querySelector("#stop-all").hidden = !(open > 1); }
}
