// The page's life: one WebSocket, and the parts that show what comes over it.
import { Camera } from "./camera.js";
import { Stage } from "./stage.js";
import { Talk } from "./talk.js";
import { Plots } from "./plots.js";
import { Panels } from "./panels.js";

const FULL = 4503;

class Link {
  constructor(onMessage, onPicture, onState) {
    Object.assign(this, { onMessage, onPicture, onState, offset: 0, trip: Infinity, wait: 500 });
    this.open();
  }
  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/chat/live`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => { this.wait = 500; this.trip = Infinity; this.onState(""); this.askTime(5); };
    this.socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return this.tookPicture(new DataView(data), data);
      const message = JSON.parse(data);
      if ("clock" in message) this.tookTime(message); else this.onMessage(message);
    };
    this.socket.onclose = ({ code }) => {
      this.onState(code === FULL ? "" : "Connection lost, trying again …");
      setTimeout(() => this.open(), code === FULL ? 5000 : this.wait);
      this.wait = Math.min(2 * this.wait, 10000);
    };
  }
  tookPicture(head, data) {
    this.onPicture(head.getFloat64(0, true), head.getUint16(8, true), head.getUint16(10, true), data.slice(12));
  }
  get ready() { return this.socket.readyState === WebSocket.OPEN; }
  get busy() { return this.socket.bufferedAmount > 262144; }
  say(op, rest = {}) {
    if (!this.ready) return false;
    this.socket.send(JSON.stringify({ op, ...rest }));
    return true;
  }
  // The server's clock, so that it can tell how old a picture is when it arrives. The shortest trip knows best.
  askTime(times) {
    this.say("clock", { sent: Date.now() / 1000 });
    if (times > 1) setTimeout(() => this.askTime(times - 1), 200);
  }
  tookTime({ clock, server }) {
    const now = Date.now() / 1000, trip = now - clock;
    if (trip < this.trip) { this.trip = trip; this.offset = server - (clock + now) / 2; }
  }
  sendPicture(taken, bytes) {
    const message = new Uint8Array(8 + bytes.byteLength);
    new DataView(message.buffer).setFloat64(0, taken + this.offset, true);
    message.set(new Uint8Array(bytes), 8);
    this.socket.send(message);
  }
}

export function toast(text) {
  const line = document.createElement("div");
  line.textContent = text;
  document.querySelector("#toasts").append(line);
  setTimeout(() => line.remove(), 8000);
}

function begin() {
  const full = document.querySelector("#full");
  const talk = new Talk((op, rest) => link.say(op, rest));
  const camera = new Camera((taken, bytes) => link.sendPicture(taken, bytes), () => link.ready && !link.busy, toast);
  const stage = new Stage((op, rest) => link.say(op, rest), camera, talk, toast);
  const plots = new Plots("#plots");
  const panels = new Panels((op, rest) => link.say(op, rest));
  const link = new Link(
    (message) => {
      full.hidden = !message.full;
      if (message.full) document.querySelector("#full-text").textContent = message.full;
      if (message.hello) { talk.clear(); plots.clear(); panels.clear(); stage.greet(message.hello); }
      if (message.refused) { toast(message.refused); stage.idle(); }
      if (message.state) { stage.show(message.state); talk.state(message.state); plots.run(message.state.run); panels.state(message.state); }
      if (message.entries) { talk.draw(message.entries.filter(({ kind }) => kind !== "note")); panels.note(message.entries); }
      if (message.watches) panels.watches(message.watches);
      if (message.samples) { plots.add(message.samples); stage.lag(message.samples.at(-1)); }
    },
    (pts, kept, tokens, jpeg) => stage.picture(pts, kept, tokens, jpeg),
    (text) => { document.querySelector("#link-state").textContent = text; },
  );
  document.addEventListener("click", ({ target }) => {
    const moment = target.closest?.(".moment");
    if (moment) stage.lookAt(Number(moment.dataset.run), Number(moment.dataset.at));
    const button = target.closest?.("[data-op]");
    if (button) link.say(button.dataset.op, { entry: Number(button.dataset.entry) });
    if (target.id === "delete" && confirm("Delete this conversation, its pictures and all the model remembers of it?"))
      link.say("delete");
    const suggestion = target.closest?.("[data-ask]");
    if (suggestion) window.streamvlm.ask(suggestion.dataset.ask);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input, textarea");
    if (event.key === "Escape") link.say("stop_all");
    if (event.key === "/" && !typing) { event.preventDefault(); document.querySelector("#question textarea").focus(); }
  });
  window.streamvlm = {
    start: (name, address, seed) => stage.start(name, { address: address ?? "", seed: seed ?? 7 }),
    leave: () => link.say("leave"),
    ask: (text) => link.say("ask", { text, about: stage.about() }),
    watch: (text) => link.say("watch", { text }),
    chosen: (name, withAddress, withSeed) => {
      document.querySelector("#address").classList.toggle("shown", name === withAddress);
      document.querySelector("#seed").classList.toggle("shown", name === withSeed);
    },
    link, camera, stage,
  };
}

// Gradio builds the page some time after this script has been read, and a tab only when it is looked at.
const parts = ["#stage", "#transcript", "#question textarea"];
const built = () => parts.every((part) => document.querySelector(part));
if (built()) begin();
else {
  const watcher = new MutationObserver(() => { if (built()) { watcher.disconnect(); begin(); } });
  watcher.observe(document.documentElement, { childList: true, subtree: true });
}
