// Instruments as small plots of the last two minutes.
const KEPT = 120, WIDE = 160, HIGH = 36;
const PLOTS = [
  { name: "Lag", unit: "ms", lines: ["lag_ms"] },
  { name: "Frames in, perceived", unit: "/s", lines: ["fps_in", "fps_perceived"] },
  { name: "Step", unit: "ms", lines: ["step_ms"] },
  { name: "Tokens kept", unit: "/s", lines: ["tokens_kept"] },
  { name: "Frames dropped", unit: "/s", lines: ["dropped"] },
  { name: "Cache: window, answers", unit: "slots", lines: ["window", "answers"], ceiling: "capacity" },
  { name: "Remembered, lost", unit: "tokens", lines: ["stored", "lost"] },
];
const short = (value) => value == null ? "-" : value >= 1e6 ? `${(value / 1e6).toFixed(1)}M` : value >= 1e4 ? `${Math.round(value / 1e3)}k` : value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);

export class Plots {
  constructor(place) {
    Object.assign(this, { place, samples: [], views: [] });
    setInterval(() => { if (!this.views[0]?.value.isConnected) this.build(); }, 300);
  }
  build() {
    const root = document.querySelector(this.place);
    if (!root) return;
    root.replaceChildren();
    this.views = PLOTS.map((plot) => {
      const box = document.createElement("figure");
      box.innerHTML = `<figcaption>${plot.name} <b></b></figcaption><svg viewBox="0 0 ${WIDE} ${HIGH}" preserveAspectRatio="none">${plot.lines.map((_, i) => `<polyline class="line-${i}"></polyline>`).join("")}</svg>`;
      root.append(box);
      return { ...plot, value: box.querySelector("b"), paths: [...box.querySelectorAll("polyline")] };
    });
    this.draw();
  }
  clear() { this.samples = []; this.draw(); }
  run(number) { if (number !== this.number) { this.number = number; this.clear(); } }
  add(samples) { this.samples = [...this.samples, ...samples].slice(-KEPT); this.draw(); }
  draw() {
    for (const { lines, paths, value, unit, ceiling } of this.views) {
      const last = this.samples.at(-1);
      value.textContent = last ? `${lines.map((line) => short(last[line])).join(", ")} ${unit}` : "";
      const all = this.samples.flatMap((sample) => lines.map((line) => sample[line] ?? 0));
      const most = (ceiling && last?.[ceiling]) || Math.max(1e-9, ...all);
      lines.forEach((line, index) => {
        const points = this.samples.map((sample, place) => {
          const x = WIDE - (this.samples.length - 1 - place) * (WIDE / (KEPT - 1));
          return `${x.toFixed(1)},${(HIGH - 1 - ((sample[line] ?? 0) / most) * (HIGH - 3)).toFixed(1)}`;
        });
        paths[index].setAttribute("points", points.join(" "));
      });
    }
  }
}
