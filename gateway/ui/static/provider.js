/* The demo's provider, seen from its own side: is it still generating?
 *
 * The page asks the provider for its counters, quickly while something runs and seldom otherwise. After Cancel it asks as
 * fast as the answers come, so that the time it reports is at most one such round trip too long. */

import { byId, formatCount, formatMs, plural, showText } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const QUICK_MS = 250;
const SLOW_MS = 2000;
const HIDDEN_MS = 60_000;
const LINGER_MS = 2000;
const WINDOW_MS = 20_000;
const SMOOTH_OVER = 4;
const GIVE_UP_MS = 3000;
const WIDTH = 300;
const HEIGHT = 56;

export class ProviderPanel {
  #root;
  #samples = []; // {atMs, tokens, rate}, of the last WINDOW_MS
  #marks = []; // moments of Cancel
  #latest = null;
  #running = false;
  #quickUntilMs = 0;
  #wake = () => {};
  #line;
  #area;
  #cancelLine;

  constructor(root) {
    this.#root = root;
    const spark = byId("spark");
    [this.#area, this.#line, this.#cancelLine] = ["area", "line", "cancel"].map((name) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      path.setAttribute("vector-effect", "non-scaling-stroke");
      spark.append(path);
      return path;
    });
    document.addEventListener("visibilitychange", () => this.#wake());
  }

  /** Poll for as long as the page lives. */
  async watch() {
    for (;;) {
      if (!document.hidden) await this.#poll();
      const quick = this.#running || performance.now() < this.#quickUntilMs;
      await this.#pause(document.hidden ? HIDDEN_MS : quick ? QUICK_MS : SLOW_MS);
    }
  }

  setRunning(running) {
    if (this.#running && !running) this.#quickUntilMs = performance.now() + LINGER_MS;
    this.#running = running;
    if (running) byId("verdict").hidden = true;
    this.#wake();
  }

  /** Call right after the request was aborted: measures how long the provider goes on. */
  async measureCancel() {
    const cancelledAtMs = performance.now();
    const before = this.#latest;
    this.#marks.push(cancelledAtMs);
    for (;;) {
      const now = await this.#poll();
      const tookMs = performance.now() - cancelledAtMs;
      if (now !== null && before !== null && now.cancelled > before.cancelled) {
        return this.#tellSince(`The provider stopped ${formatMs(tookMs)} after Cancel`, now);
      }
      if (now !== null && now.active === 0) {
        return this.#tell(`Nothing was running at the provider ${formatMs(tookMs)} after Cancel.`, "good");
      }
      if (tookMs > GIVE_UP_MS) return this.#tell(`The provider is still generating ${formatMs(tookMs)} after Cancel.`, "bad");
    }
  }

  async #tellSince(sentence, stopped) {
    this.#tell(`${sentence}.`, "good");
    await delay(QUICK_MS * 2);
    const later = await this.#poll();
    if (later === null || this.#running || later.started !== stopped.started || stopped.active > 0) return;
    this.#tell(`${sentence} and has generated ${plural(later.tokens_sent - stopped.tokens_sent, "token")} since.`, "good");
  }

  #tell(text, tone) {
    const verdict = byId("verdict");
    verdict.dataset.tone = tone;
    verdict.hidden = false;
    verdict.textContent = text;
    byId("provider-hint").hidden = true;
  }

  async #poll() {
    let counters;
    try {
      const response = await fetch("/demo/provider", { cache: "no-store", signal: AbortSignal.timeout(2000) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      counters = await response.json();
    } catch {
      this.#root.dataset.state = "unreachable";
      showText("provider-rate", "no answer");
      return null;
    }
    this.#take(counters);
    return counters;
  }

  #take(counters) {
    const atMs = performance.now();
    const last = this.#samples.at(-1);
    if (last === undefined || atMs - last.atMs >= QUICK_MS / 2) {
      this.#samples.push({ atMs, tokens: counters.tokens_sent, rate: this.#rate(atMs, counters.tokens_sent) });
    }
    this.#latest = counters;
    const oldest = atMs - WINDOW_MS;
    this.#samples = this.#samples.filter((sample) => sample.atMs >= oldest - SLOW_MS);
    this.#marks = this.#marks.filter((mark) => mark >= oldest);
    this.#root.dataset.state = counters.active > 0 ? "active" : "idle";
    showText("provider-active", formatCount(counters.active));
    showText("provider-finished", formatCount(counters.finished));
    showText("provider-cancelled", formatCount(counters.cancelled));
    showText("provider-tokens", formatCount(counters.tokens_sent));
    showText("provider-rate", counters.active > 0 ? `${Math.round(this.#samples.at(-1).rate)} tokens/s` : "idle");
    this.#draw(atMs);
  }

  /* Over a few samples, since between two polls it is six tokens or seven; but nothing new is nothing, at once. */
  #rate(atMs, tokens) {
    const recent = this.#samples.slice(-SMOOTH_OVER).filter((sample) => atMs - sample.atMs < SLOW_MS / 2);
    if (recent.length === 0 || tokens <= recent.at(-1).tokens) return 0;
    return ((tokens - recent[0].tokens) / (atMs - recent[0].atMs)) * 1000;
  }

  #draw(nowMs) {
    const highest = Math.max(20, ...this.#samples.map((sample) => sample.rate)) * 1.15;
    const x = (atMs) => (WIDTH * (1 - (nowMs - atMs) / WINDOW_MS)).toFixed(1);
    const y = (rate) => (HEIGHT - 2 - (HEIGHT - 4) * (rate / highest)).toFixed(1);
    const points = this.#samples.map((sample) => `${x(sample.atMs)} ${y(sample.rate)}`);
    const line = points.length > 1 ? `M${points.join("L")}` : "";
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", line && `${line}V${HEIGHT}H${x(this.#samples[0].atMs)}Z`);
    this.#cancelLine.setAttribute("d", this.#marks.map((mark) => `M${x(mark)} 0V${HEIGHT}`).join(""));
  }

  /** Wait, or until something happens that makes the next poll urgent. */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
