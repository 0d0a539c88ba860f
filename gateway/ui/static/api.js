/* The gateway's endpoints, as one stream of events whatever the endpoint.
 *
 * Assistants are asked through /v1/orchestrate, whose events tell of the context too; models through /v1/chat/completions,
 * whose chunks are put into the same events here. The last event is always one of: done, error, broken. A stream that just
 * ends is broken: it must never look like a complete answer. */

import { readEvents } from "./sse.js";

/** The gateway said no before it sent any of the answer. */
export class Refused extends Error {
  constructor(status, code, message, retryAfterS) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
  get busy() {
    return this.status === 429 || this.status === 503;
  }
}

/** No answer at all: the gateway is down, or the network is. */
export class Unreachable extends Error {}

export async function listModels(key) {
  const response = await reach("/v1/models", { headers: headers(key), cache: "no-store" });
  if (!response.ok) throw await refusal(response);
  const listed = await response.json();
  return listed.data.map((entry) => ({ id: String(entry.id), kind: entry.sluice?.kind ?? "model" }));
}

/** Ask, and yield {type, ...} events; the first is "open" with what the response's headers say. */
export async function* ask(question, key, signal) {
  const assistant = question.kind === "assistant";
  const response = await reach(assistant ? "/v1/orchestrate" : "/v1/chat/completions", {
    method: "POST",
    headers: { ...headers(key), "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify(assistant ? orchestrateBody(question) : chatBody(question)),
    cache: "no-store",
    signal,
  });
  if (!response.ok) throw await refusal(response);
  const queueMs = response.headers.get("x-sluice-queue-ms");
  yield {
    type: "open",
    target: response.headers.get("x-sluice-target"),
    queueMs: queueMs === null ? null : Number(queueMs),
    early: assistant, // its headers come before the context, a model's with the first token
    requestId: response.headers.get("x-request-id"),
  };
  yield* untilTheEnd(assistant ? orchestrateEvents(response.body) : chatEvents(response.body));
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Unreachable("The connection failed before an answer began.");
  }
}

function headers(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

function orchestrateBody({ model, text, user, conversation }) {
  return { assistant: model, input: text, user, conversation, stream: true };
}

function chatBody({ model, text, user }) {
  const body = {
    model,
    messages: [{ role: "user", content: text }],
    stream: true,
    stream_options: { include_usage: true },
  };
  if (user !== null) body.user = user;
  return body;
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // a proxy in between may answer in HTML: the status has to do
  }
  const seconds = Number.parseFloat(response.headers.get("retry-after"));
  return new Refused(
    response.status,
    error.code ?? error.type ?? "",
    error.message ?? `The gateway answered with status ${response.status}.`,
    Number.isFinite(seconds) && seconds >= 0 ? seconds : null,
  );
}

/* Reads on after the last event: closing earlier would look to the gateway like a client that left. */
async function* untilTheEnd(events) {
  let ended = false;
  try {
    for await (const event of events) {
      if (ended) continue;
      ended = event.type === "done" || event.type === "error";
      yield event;
    }
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    if (!ended) yield { type: "broken", reason: broken(problem) };
    return;
  }
  if (!ended) yield { type: "broken", reason: "The stream ended before the answer did." };
}

function broken(problem) {
  if (problem instanceof SyntaxError) return "The stream held something that is not JSON.";
  return "The connection was lost before the answer was complete.";
}

async function* orchestrateEvents(body) {
  for await (const { event, data } of readEvents(body)) {
    yield { ...JSON.parse(data), type: event };
  }
}

async function* chatEvents(body) {
  const tools = new Map();
  let finishReason = null;
  for await (const { data } of readEvents(body)) {
    if (data === "[DONE]") {
      for (const tool of tools.values()) yield { type: "tool.called", ...tool };
      yield { type: "done", finish_reason: finishReason };
      continue;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) {
      yield { type: "error", ...chunk.error };
      continue;
    }
    const choice = chunk.choices?.find((each) => each.index === 0);
    const text = choice?.delta?.content || choice?.delta?.refusal;
    if (text) yield { type: "text.delta", text };
    for (const piece of choice?.delta?.tool_calls ?? []) collect(tools, piece);
    finishReason = choice?.finish_reason ?? finishReason;
    if (chunk.usage) yield { type: "usage", ...chunk.usage };
  }
}

function collect(tools, piece) {
  const tool = tools.get(piece.index) ?? { id: "", name: "", arguments: "" };
  tool.id ||= piece.id ?? "";
  tool.name += piece.function?.name ?? "";
  tool.arguments += piece.function?.arguments ?? "";
  tools.set(piece.index, tool);
}
