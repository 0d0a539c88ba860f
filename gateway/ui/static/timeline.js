/* What happens before the first token, as bars on one time axis.
 *
 * The axis ends at the first token: an answer takes many times as long as its context, and on an axis that held both one
 * would not see that the loaders run side by side. The wait for the model can dwarf the context as well; the axis is then
 * split where that wait begins, each part on a scale of its own, with the times written at the split and the ends. No bar
 * lies across the split. Lengths are the gateway's own measurements where it gives them. */

import { element, formatMs } from "./dom.js";

const STEPS = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10]; // round numbers
const SHORTEST_AXIS_MS = 40;
const TICKS = 3;
const SPLIT_FROM = 4; // the whole is so many times as long as the context
const SPLIT_AT = 0.4; // of the width

export class Timeline {
  #root;
  #lanes = new Map();
  #ticks = [];
  #startedAt = 0;
  #frozenMs = null;
  #splitMs = Infinity;
  #frame = 0;

  constructor(root) {
    this.#root = root;
  }

  begin() {
    this.#startedAt = performance.now();
    this.#frozenMs = null;
    this.#splitMs = Infinity;
    this.#lanes.clear();
    this.#root.dataset.state = "running";
    this.#root.replaceChildren(this.#axis());
    this.#tick();
  }

  /** Count from the moment the gateway took the request, so that the way there does not stand before the bars. */
  beginAt(moment) {
    this.#startedAt = moment;
  }

  /** Open a lane after all the others; from where it begins the axis may have a scale of its own. */
  openAfter(name) {
    const ends = [...this.#lanes.values()].map((lane) => lane.atMs + lane.ms);
    this.#splitMs = Math.max(this.elapsedMs, ...ends); // news travels: a measured end may lie a little ahead
    this.open(name, { atMs: this.#splitMs });
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
    chip.title = kind;
    chip.append(element("span", { className: "name", text: label }));
    if (kind && kind !== label) chip.append(element("span", { className: "kind", text: kind }));
    const time = element("span", { className: "time", text: "" });
    row.append(chip, track, time, element("span", { className: "note" }));
    this.#lanes.set(name, { row, bar, time, atMs, ms: null });
    if (first) this.#root.prepend(row);
    else this.#root.lastElementChild.before(row);
    this.#draw();
  }

  /** Close a lane. `state` is loaded, failed, skipped or cancelled; `ms` its measured length, when there is one. */
  close(name, state, { ms = null, note = "" } = {}) {
    if (!this.#lanes.has(name)) this.open(name);
    const lane = this.#lanes.get(name);
    lane.ms = ms ?? Math.max(0, this.elapsedMs - lane.atMs);
    lane.atMs = Math.max(0, Math.min(lane.atMs, this.elapsedMs - lane.ms)); // the news of its start may have been late
    lane.row.dataset.state = state;
    lane.time.textContent = state === "skipped" ? "skipped" : formatMs(lane.ms);
    lane.row.lastElementChild.textContent = note;
    this.#draw();
  }

  remove(name) {
    this.#lanes.get(name)?.row.remove();
    this.#lanes.delete(name);
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
    this.#ticks = Array.from({ length: TICKS }, () => element("span", { className: "tick" }));
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
    const axis = endMs > this.#splitMs * SPLIT_FROM ? splitAxis(this.#splitMs, endMs) : plainAxis(endMs);
    this.#root.dataset.split = axis.split ? "yes" : "no";
    this.#ticks.forEach((tick, index) => {
      const ms = axis.ticks[index];
      tick.hidden = ms === undefined;
      if (ms === undefined) return;
      tick.style.left = percent(axis.place(ms));
      tick.textContent = tickLabel(ms);
    });
    for (const lane of this.#lanes.values()) {
      const lengthMs = lane.ms ?? Math.max(0, nowMs - lane.atMs);
      const left = axis.place(lane.atMs);
      lane.bar.style.left = percent(left);
      lane.bar.style.width = percent(axis.place(lane.atMs + lengthMs) - left);
      if (lane.ms === null) lane.time.textContent = formatMs(lengthMs);
    }
  }
}

/* An axis: where a moment lies (0 to 1), and which moments are written below it. */

function plainAxis(endMs) {
  const lastMs = roundUp(endMs);
  return { split: false, place: (ms) => ms / lastMs, ticks: [0, lastMs / 2, lastMs] };
}

function splitAxis(splitMs, endMs) {
  const restMs = roundUp(endMs - splitMs);
  const place = (ms) =>
    ms <= splitMs ? (SPLIT_AT * ms) / splitMs : SPLIT_AT + ((1 - SPLIT_AT) * (ms - splitMs)) / restMs;
  return { split: true, place, ticks: [0, splitMs, splitMs + restMs] };
}

function roundUp(ms) {
  const power = 10 ** Math.floor(Math.log10(ms));
  return power * STEPS.find((step) => step * power >= ms);
}

function tickLabel(ms) {
  if (ms === 0) return "0";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${Number((ms / 1000).toFixed(1))} s`;
}

const percent = (part) => `${(part * 100).toFixed(2)}%`;
