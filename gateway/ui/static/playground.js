/* The playground: pick, type, watch, cancel.
 *
 * At most one request runs. Cancel aborts its fetch, which closes the connection; the gateway notices that and stops
 * everything it started for it. A run ends in exactly one of: complete, cancelled, refused, failed, broken. */

import { Refused, Unreachable, ask, listModels } from "./api.js";
import { byId, element, formatMs, plural, showText } from "./dom.js";
import { ProviderPanel } from "./provider.js";
import { Timeline } from "./timeline.js";
import { AnswerView } from "./view.js";

const KEY = "sluice-key";
const FIGURES_EVERY_MS = 100;
const MODEL = "model"; // the lane that waits for the first token

const view = new AnswerView();
const timeline = new Timeline(byId("timeline"));
const provider = byId("provider") ? new ProviderPanel(byId("provider")) : null;
const conversation = `playground-${randomId()}`;
let current = null;
let afterKey = null;

function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function kindOfModel() {
  return byId("model").selectedOptions[0]?.dataset.kind ?? "model";
}

function question() {
  const assistant = kindOfModel() === "assistant";
  return {
    model: byId("model").value,
    kind: kindOfModel(),
    text: byId("prompt").value,
    user: byId("user").value.trim() || null,
    conversation: assistant && byId("remember").checked ? conversation : null,
  };
}

function refreshControls() {
  byId("send").disabled = current !== null || byId("model").disabled || byId("prompt").value.trim() === "";
  byId("cancel").disabled = current === null;
  byId("remember-field").hidden = kindOfModel() !== "assistant";
}

async function send() {
  if (byId("send").disabled) return;
  const run = {
    controller: new AbortController(),
    startedAt: performance.now(),
    ttftMs: null,
    totalMs: null,
    pieces: 0,
    usage: null,
  };
  current = run;
  refreshControls();
  view.begin();
  timeline.begin();
  provider?.setRunning(true);
  const ticking = setInterval(() => view.figures(run), FIGURES_EVERY_MS);
  try {
    const asked = question();
    timeline.open(MODEL);
    for await (const event of ask(asked, sessionStorage.getItem(KEY), run.controller.signal)) handle(run, event);
  } catch (problem) {
    failed(run, problem);
  } finally {
    clearInterval(ticking);
    view.figures(run);
    timeline.freeze("cancelled");
    current = null;
    provider?.setRunning(false);
    refreshControls();
  }
}

function cancel() {
  if (current === null) return;
  const run = current;
  run.controller.abort();
  provider?.measureCancel();
}

const HANDLERS = {
  open(run, { target, queueMs, requestId, early }) {
    if (early) timeline.beginAt(performance.now() - (queueMs ?? 0));
    if (target) view.fact("target", target);
    if (requestId) view.fact("request", requestId);
    if (queueMs !== null) {
      view.fact("queue", formatMs(queueMs));
      timeline.open("queue", { atMs: 0, first: true });
      timeline.close("queue", "loaded", { ms: queueMs });
    }
    timeline.open(MODEL, { atMs: queueMs ?? 0 });
  },
  "context.started"(run, { loader, kind }) {
    timeline.remove(MODEL); // it comes after the context
    timeline.open(`loader ${loader}`, { label: loader, kind });
    view.state("loading", "Loading context …");
  },
  "context.loaded"(run, { loader, ms, items = [], chars = 0 }) {
    const note = items.length === 0 ? "nothing found" : `${plural(items.length, "item")}, ${plural(chars, "character")}`;
    timeline.close(`loader ${loader}`, "loaded", { ms, note });
    view.sources(loader, items);
    contextEnded();
  },
  "context.failed"(run, { loader, ms, reason }) {
    timeline.close(`loader ${loader}`, "failed", { ms, note: reason });
    contextEnded();
  },
  "context.skipped"(run, { loader, kind, reason }) {
    timeline.open(`loader ${loader}`, { label: loader, kind });
    timeline.close(`loader ${loader}`, "skipped", { ms: 0, note: reason });
  },
  "model.started"(run, { target, model, attempt }) {
    const again = attempt > 1 ? `, attempt ${attempt}` : "";
    view.fact("target", `${target ?? model}${again}`);
  },
  "text.delta"(run, { text }) {
    firstToken(run);
    run.pieces += 1;
    view.append(text);
  },
  "tool.called"(run, { name, arguments: args }) {
    firstToken(run);
    view.tool(name, args);
  },
  usage(run, usage) {
    run.usage = usage;
  },
  done(run, { finish_reason: reason, ttft_ms: ttftMs, total_ms: totalMs, request_id: requestId }) {
    run.ttftMs = ttftMs ?? run.ttftMs;
    run.totalMs = totalMs ?? performance.now() - run.startedAt;
    if (requestId) view.fact("request", requestId);
    view.figures(run);
    if (reason === "length") view.mark("Cut at the token limit.");
    const tokens = run.usage?.completion_tokens ?? run.pieces;
    view.state("complete", `Complete, ${plural(tokens, "token")}`);
  },
  error(run, { code, message, retry_after_s: retryAfterS }) {
    ended(run, "failed", run.pieces > 0 ? "Broken off" : "Failed");
    if (run.pieces > 0) view.mark("The answer breaks off here: it is not complete.");
    if (retryAfterS !== undefined && retryAfterS !== null) view.busy(message, retryAfterS, send);
    else view.notice("error", code ? `Error: ${code}` : "Error", message ?? "The gateway gave no reason.", send);
  },
  broken(run, { reason }) {
    ended(run, "failed", "Broken off");
    if (run.pieces > 0) view.mark("The answer breaks off here: it is not complete.");
    view.notice("error", "The stream broke", reason, send);
  },
};

function handle(run, event) {
  HANDLERS[event.type]?.(run, event); // an event of a later version is not an error
}

/* The gateway asks the model as soon as the last loader has ended, and tells of it with the first token. */
function contextEnded() {
  if (!timeline.quiet) return;
  timeline.openAfter(MODEL);
  view.state("waiting", "Waiting for the first token …");
}

function firstToken(run) {
  if (run.ttftMs !== null) return;
  run.ttftMs = performance.now() - run.startedAt;
  timeline.freeze("loaded");
  view.figures(run);
  view.state("streaming", "Answering …");
}

function ended(run, state, status, lanes = "failed") {
  run.totalMs = performance.now() - run.startedAt;
  timeline.freeze(lanes);
  view.state(state, status);
}

function failed(run, problem) {
  if (problem.name === "AbortError") {
    run.totalMs = performance.now() - run.startedAt;
    view.state("cancelled", "Cancelled");
    if (run.pieces > 0) view.mark(`Cancelled here, after about ${plural(run.pieces, "token")}.`);
  } else if (problem instanceof Unreachable) {
    ended(run, "failed", "Failed");
    view.notice("error", "The gateway cannot be reached", problem.message, send);
  } else if (!(problem instanceof Refused)) {
    ended(run, "failed", "Failed");
    throw problem; // a fault of this page: the console shall show it
  } else if (problem.status === 401) {
    ended(run, "refused", "A key is needed", "skipped");
    askForKey(problem.message, send);
  } else if (problem.busy) {
    ended(run, "refused", "Busy", "skipped");
    view.busy(problem.message, problem.retryAfterS, send);
  } else {
    ended(run, "refused", "Refused", "skipped");
    view.notice("error", `Refused: ${problem.code || problem.status}`, problem.message, send);
  }
}

function askForKey(reason, then) {
  const known = sessionStorage.getItem(KEY) !== null;
  sessionStorage.removeItem(KEY);
  afterKey = then;
  byId("key-form").hidden = false;
  showText("key-reason", known ? `The gateway does not take this key: ${reason}` : reason);
  byId("key").focus();
}

async function loadModels() {
  let models;
  try {
    models = await listModels(sessionStorage.getItem(KEY));
  } catch (problem) {
    if (problem instanceof Refused && problem.status === 401) askForKey(problem.message, loadModels);
    else view.notice("error", "The models cannot be listed", problem.message, loadModels);
    return;
  }
  view.hideNotice();
  showModels(models);
}

function showModels(models) {
  const select = byId("model");
  const groups = [
    ["Assistants", models.filter((model) => model.kind === "assistant")],
    ["Models", models.filter((model) => model.kind !== "assistant")],
  ].filter(([, members]) => members.length > 0);
  select.replaceChildren(
    ...groups.map(([label, members]) => {
      const group = element("optgroup");
      group.label = label;
      group.append(
        ...members.map(({ id, kind }) => {
          const option = element("option", { text: id, kind });
          option.value = id;
          return option;
        }),
      );
      return group;
    }),
  );
  select.disabled = models.length === 0;
  if (models.length === 0) view.notice("error", "No models", "The gateway's configuration names no model.", loadModels);
  refreshControls();
}

function listen() {
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, byId("key").value.trim());
    byId("key").value = "";
    byId("key-form").hidden = true;
    view.hideNotice();
    const again = byId("model").disabled ? loadModels : afterKey;
    again?.();
  });
  byId("cancel").addEventListener("click", cancel);
  byId("prompt").addEventListener("input", refreshControls);
  byId("model").addEventListener("change", refreshControls);
  for (const button of document.querySelectorAll("[data-question]")) {
    button.addEventListener("click", () => {
      byId("prompt").value = button.textContent;
      refreshControls();
      byId("prompt").focus();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") cancel();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      send();
    }
  });
}

listen();
if (document.body.dataset.needsKey === "yes" && sessionStorage.getItem(KEY) === null) {
  askForKey("Enter one of the keys in its configuration.", loadModels);
} else {
  loadModels();
}
provider?.watch();
