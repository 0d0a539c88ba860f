/* The answer card and the figures: what one request looks like, from "sent" to its end.
 *
 * The text is appended to one text node. Only the status line is a live region: a screen reader hears that the answer came,
 * not every token of it. */

import { byId, element, formatCount, formatMs, plural, showText } from "./dom.js";

const FACTS = ["ttft", "rate", "tokens", "prompt", "total", "queue", "target", "request"];

export class AnswerView {
  #text = null;
  #countdown = 0;

  begin() {
    this.hideNotice();
    this.#text = document.createTextNode("");
    byId("answer").replaceChildren(this.#text);
    for (const id of ["tools", "source-list"]) byId(id).replaceChildren();
    for (const id of ["tools", "sources", "mark"]) byId(id).hidden = true;
    for (const fact of FACTS) this.fact(fact, "–");
    showText("timeline-total", "");
    this.state("waiting", "Waiting …");
  }

  state(name, status) {
    byId("answer-card").dataset.state = name;
    showText("status", status);
    showText("status-more", "");
  }

  append(text) {
    this.#text.appendData(text);
  }

  fact(name, text) {
    showText(`fact-${name}`, text);
    const target = byId(`fact-${name}`);
    if (name === "target" || name === "request") target.title = text;
  }

  tool(name, args) {
    const list = byId("tools");
    list.hidden = false;
    const item = element("li");
    item.append(element("strong", { text: name }), element("code", { text: args }));
    list.append(item);
  }

  sources(loader, items) {
    if (items.length === 0) return;
    byId("sources").hidden = false;
    for (const { source, chars } of items) {
      const item = element("li");
      item.append(element("span", { className: "loader", text: loader }), element("span", { text: source }));
      item.title = plural(chars, "character");
      byId("source-list").append(item);
    }
  }

  figures(run, nowMs = performance.now()) {
    this.fact("total", formatMs(run.totalMs ?? nowMs - run.startedAt));
    if (run.ttftMs === null) return;
    this.fact("ttft", formatMs(run.ttftMs));
    showText("timeline-total", formatMs(run.ttftMs));
    const tokens = run.usage?.completion_tokens ?? run.pieces;
    const about = run.usage && !run.usage.estimated ? "" : "≈ ";
    const spanMs = (run.totalMs ?? nowMs - run.startedAt) - run.ttftMs;
    this.fact("tokens", `${about}${formatCount(tokens)}`);
    if (run.usage) this.fact("prompt", `${about}${formatCount(run.usage.prompt_tokens)}`);
    if (spanMs > 100 && tokens > 1) this.fact("rate", `${about}${((tokens - 1) / (spanMs / 1000)).toFixed(1)}`);
  }

  /** Say that what stands there is not the whole answer. */
  mark(text) {
    byId("mark").hidden = false;
    showText("mark", text);
  }

  /** tone: busy or error; `again` is called when the person presses "Try again". */
  notice(tone, title, text, again = null) {
    clearInterval(this.#countdown);
    const box = byId("notice");
    box.hidden = false;
    box.dataset.tone = tone;
    showText("notice-title", title);
    showText("notice-text", text);
    const button = byId("notice-again");
    button.hidden = again === null;
    button.onclick = again;
  }

  /** "Busy, again in 2 s", counting down; the live region hears of its start and its end only. */
  busy(reason, retryAfterS, again) {
    if (retryAfterS === null) {
      this.notice("busy", "Busy", reason, again);
      return;
    }
    showText("status-more", `, try again in ${Math.ceil(retryAfterS)} seconds: ${reason}`);
    const freeAt = performance.now() + retryAfterS * 1000;
    const leftS = () => Math.ceil((freeAt - performance.now()) / 1000);
    const title = () => `Busy, again in ${leftS()} s`;
    this.notice("busy", title(), reason, again);
    this.#countdown = setInterval(() => {
      if (leftS() > 0) {
        showText("notice-title", title());
        return;
      }
      clearInterval(this.#countdown);
      byId("notice").dataset.tone = "ready";
      showText("notice-title", "Ready to try again");
      showText("status", "Ready to try again");
      showText("status-more", "");
    }, 100);
  }

  hideNotice() {
    clearInterval(this.#countdown);
    byId("notice").hidden = true;
  }
}
