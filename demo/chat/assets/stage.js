// What is watched, and looking back at it.
const two = (number) => String(number).padStart(2, "0");
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${two(m)}:${two(s)}`;
}
const $ = (part) => document.querySelector(part);

export class Stage {
  constructor(say, camera, talk, complain) {
    Object.assign(this, { say, camera, talk, complain, state: {}, past: null, shown: 0 });
    this.root = $("#stage");
    this.player = $("#player");
    document.addEventListener("click", ({ target }) => {
      const start = target.closest?.("[data-start]");
      if (start) this.start(start.dataset.start, {});
      if (target.closest?.("[data-choose]")) $("#file").click();
    });
    $("#file").addEventListener("change", () => { this.upload($("#file").files[0]); $("#file").value = ""; });
    this.root.addEventListener("dragover", (event) => event.preventDefault());
    this.root.addEventListener("drop", (event) => { event.preventDefault(); this.upload(event.dataTransfer.files[0]); });
    $("#scrub").addEventListener("input", () => this.lookAt(this.state.run, Number($("#scrub").value)));
    $("#to-now").addEventListener("click", () => this.toNow());
    $("#about-off").addEventListener("click", () => this.toNow());
    $("#view-on").addEventListener("change", () => { this.askView(); this.dress(); });
    for (const event of ["play", "pause", "seeked", "ratechange", "ended"])
      this.player.addEventListener(event, () => this.follow());
    setInterval(() => { if (this.state.kind === "file" && !this.player.paused) this.follow(); }, 1000);
  }
  greet({ upload }) { this.most = upload; this.state = {}; this.askView(); }
  askView() { this.say("view", { on: $("#view-on").checked }); }
  start(name, rest) {
    if (name === "My video file" && !rest.again) return $("#file").click();
    this.work(`Opening ${name} …`);
    this.say("start", { name, ...rest });
  }
  work(text) { $("#working").textContent = text; }
  idle() { this.work(""); }

  upload(file) {
    if (!file) return;
    if (file.size > this.most) return this.complain(`The file is larger than the ${Math.round(this.most / 1048576)} MB that are allowed.`);
    const request = new XMLHttpRequest();
    request.open("POST", "/chat/upload");
    request.upload.onprogress = ({ loaded, total }) => this.work(`Uploading ${Math.round((100 * loaded) / total)} %`);
    request.upload.onload = () => this.work("Looking at it …");
    request.onload = () => {
      this.idle();
      if (request.status !== 200) this.complain(JSON.parse(request.responseText).error ?? "The upload failed.");
    };
    request.onerror = () => { this.idle(); this.complain("The upload failed."); };
    request.send(file);
  }

  show(state) {
    const fresh = state.run !== this.state.run || state.kind !== this.state.kind;
    this.state = state;
    if (fresh) this.enter(state);
    if (state.kind === "camera" && !state.ended) this.camera.start(state.fps);
    else if (this.camera.on) this.camera.stop();
    $("#badge-now").textContent = state.now == null ? "" : `${state.source ?? ""} ${clock(state.now)}`.trim();
    $("#badge-load").textContent = state.load ?? "";
    $("#badge-live").hidden = !state.source || state.ended;
    const scrub = $("#scrub");
    scrub.max = Math.floor(state.now ?? 0);
    if (!this.past) scrub.value = scrub.max;
    if (this.player.ended && state.kind === "file") this.root.dataset.over = "yes";
    this.dress();
  }
  enter(state) {
    this.idle();
    this.past = null;
    $("#view").removeAttribute("src");
    $("#badge-lag").textContent = "";
    if (state.kind === "file") {
      this.player.src = `/chat/video?run=${state.run}`;
      this.player.currentTime = state.playhead;
      this.player.play().catch(() => this.follow());
    } else if (this.player.src) {
      this.player.removeAttribute("src");
      this.player.load();
    }
  }
  dress() {
    const { kind, source } = this.state;
    const view = $("#view-on").checked && source;
    if (!view) $("#badge-seen").textContent = "";
    this.root.dataset.kind = source ? kind : "none";
    this.root.dataset.showing = this.past ? "past" : view ? "view" : kind ?? "none";
    $("#look").hidden = !source && !this.state.memory;
    $("#view-toggle").hidden = !source;
    $("#scrub-time").textContent = this.past ? clock(this.past.at) : "";
    $("#to-now").hidden = !this.past && this.about() === null;
    const about = this.about();
    $("#about").hidden = about === null;
    if (about !== null) $("#about-time").textContent = clock(about);
  }
  lag(sample) {
    if (!sample) return;
    $("#badge-lag").textContent = sample.lag_ms == null ? "" : `${Math.round(sample.lag_ms)} ms behind`;
  }
  picture(pts, kept, tokens, jpeg) {
    $("#badge-seen").textContent = tokens ? `given ${kept} of ${tokens} tokens at ${clock(pts)}` : "";
    const old = $("#view").src;
    $("#view").src = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
    if (old) URL.revokeObjectURL(old);
    this.shown = pts;
  }

  // Playing a file: the model goes where the player goes, except back to what it has seen.
  follow() {
    if (this.state.kind !== "file") return;
    const { currentTime: at, paused, ended, playbackRate: rate } = this.player;
    this.say("playhead", { at, playing: !paused && !ended, rate });
    this.dress();
  }
  lookAt(run, at) {
    if (run === this.state.run && this.state.kind === "file") {
      this.player.currentTime = at;
      this.player.pause();
      this.past = null;
    } else {
      this.past = { run, at };
      $("#past").src = `/chat/picture/${run}/${at.toFixed(2)}`;
      if (run === this.state.run) $("#scrub").value = at;
    }
    this.dress();
    this.root.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
  toNow() {
    if (this.state.kind === "file" && this.state.now != null && this.player.currentTime < this.state.now) {
      this.player.currentTime = this.state.now;
    }
    this.past = null;
    $("#scrub").value = $("#scrub").max;
    this.dress();
  }
  // The moment a question is about: what is looked at, once it has left the model's view and can be remembered.
  about() {
    const { now, run, kind, window: view, store, source, memory } = this.state;
    const at = this.past && this.past.run === run ? this.past.at : kind === "file" ? this.player.currentTime : null;
    if (at === null) return null;
    if (!source) return memory ? at : null;
    return store && now != null && at < now - view ? at : null;
  }
}
