/* What happens before the first token, as bars on one time axis.
 *
 * The axis ends at the first token: an answer takes many times as long as its context, and on an axis that held both one
 * would not see that the loaders run side by side. Lengths are the gateway's own measurements where it gives them; where a
 * bar begins is when its event came in. */

import { element, formatMs } from "./dom.js";

const STEPS = [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10]; // round numbers that are round in quarters, too
const SHORTEST_AXIS_MS = 40;
const TICKS = 4;

export class Timeline {
  #root;
  #lanes = new Map();
  #ticks = [];
  #startedAt = 0;
  #frozenMs = null;
  #frame = 0;

  constructor(root) {
    this.#root = root;
  }

  begin() {
    this.#startedAt = performance.now();
    this.#frozenMs = null;
    this.#lanes.clear();
    this.#root.dataset.state = "running";
    this.#root.replaceChildren(this.#axis());
    this.#tick();
  }

  get elapsedMs() {
    return performance.now() - this.#startedAt;
  }

  /** Open a lane that grows until it is closed; one of the same name makes way. */
  open(name, { label = name, kind = "", atMs = this.elapsedMs, first = false } = {}) {
    this.remove(name);
    const row = element("div", { className: "lane", state: "running" });
    const bar = element("span", { className: "bar" });
    const track = element("span", { className: "track" });
    track.append(bar);
    const chip = element("span", { className: "chip" });
    const kindOf = element("span", { className: "kind", text: kind === label ? "" : kind });
    chip.title = `${label} ${kind}`;
    chip.append(element("span", { className: "name", text: label }), kindOf);
    const time = element("span", { className: "time", text: "" });
    row.append(chip, track, time, element("span", { className: "note" }));
    this.#lanes.set(name, { row, chip, kind: kindOf, bar, time, atMs, ms: null });
    if (first) this.#root.prepend(row);
    else this.#root.lastElementChild.before(row);
    this.#draw();
  }

  /** Close a lane. `state` is loaded, failed, skipped or cancelled; `ms` its measured length, when there is one. */
  close(name, state, { ms = null, note = "" } = {}) {
    if (!this.#lanes.has(name)) this.open(name, { atMs: Math.max(0, this.elapsedMs - (ms ?? 0)) });
    const lane = this.#lanes.get(name);
    lane.ms = ms ?? this.elapsedMs - lane.atMs;
    lane.row.dataset.state = state;
    lane.time.textContent = state === "skipped" ? "skipped" : formatMs(lane.ms);
    lane.row.lastElementChild.textContent = note;
    this.#draw();
  }

  remove(name) {
    this.#lanes.get(name)?.row.remove();
    this.#lanes.delete(name);
  }

  /** Say what a lane turned out to be. */
  describe(name, kind) {
    const lane = this.#lanes.get(name);
    if (lane === undefined) return;
    lane.chip.title = `${name} ${kind}`;
    lane.kind.textContent = kind;
  }

  /** Nothing grows. */
  get quiet() {
    return [...this.#lanes.values()].every((lane) => lane.ms !== null);
  }

  /** The first token is here, or nothing more will come: the axis stays as it is. */
  freeze(state) {
    if (this.#frozenMs !== null) return;
    for (const [name, lane] of this.#lanes) if (lane.ms === null) this.close(name, state);
    this.#frozenMs = this.elapsedMs;
    this.#root.dataset.state = "frozen";
    cancelAnimationFrame(this.#frame);
    this.#draw();
  }

  #axis() {
    const axis = element("div", { className: "axis" });
    axis.setAttribute("aria-hidden", "true");
    const scale = element("span", { className: "scale" });
    this.#ticks = Array.from({ length: TICKS + 1 }, (_, index) => {
      const tick = element("span", { className: "tick" });
      tick.style.left = `${(index / TICKS) * 100}%`;
      return tick;
    });
    scale.append(...this.#ticks);
    axis.append(scale);
    return axis;
  }

  #tick() {
    this.#draw();
    this.#frame = requestAnimationFrame(() => {
      if (this.#frozenMs === null) this.#tick();
    });
  }

  #draw() {
    const nowMs = this.#frozenMs ?? this.elapsedMs;
    let endMs = Math.max(nowMs, SHORTEST_AXIS_MS);
    for (const lane of this.#lanes.values()) endMs = Math.max(endMs, lane.atMs + (lane.ms ?? 0));
    const axisMs = roundUp(endMs);
    this.#ticks.forEach((tick, index) => {
      tick.textContent = tickLabel((axisMs * index) / TICKS, axisMs);
    });
    for (const lane of this.#lanes.values()) {
      const lengthMs = lane.ms ?? nowMs - lane.atMs;
      lane.bar.style.left = `${(lane.atMs / axisMs) * 100}%`;
      lane.bar.style.width = `${(lengthMs / axisMs) * 100}%`;
      if (lane.ms === null) lane.time.textContent = formatMs(lengthMs);
    }
  }
}

function roundUp(ms) {
  const power = 10 ** Math.floor(Math.log10(ms));
  return power * STEPS.find((step) => step * power >= ms);
}

function tickLabel(ms, axisMs) {
  if (ms === 0) return "0";
  return axisMs < 2000 ? `${Math.round(ms)} ms` : `${Number((ms / 1000).toFixed(2))} s`;
}
