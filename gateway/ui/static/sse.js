/* Server-sent events from a fetch body: bytes in, events out.
 *
 * EventSource can neither POST nor be told why a request was refused, hence a parser of our own, after the HTML standard:
 * lines end with CRLF, LF or CR, several data lines join with a newline, a comment starts with a colon, and an event that
 * the stream's end cuts off is dropped. UTF-8 may be split anywhere. */

const LINE_END = /\r\n|\n|\r/;

export class SseParser {
  #rest = "";
  #skipLineFeed = false;
  #name = "";
  #data = [];
  #id = "";

  /** Take text in, return the events it completed: {event, data, id}. */
  push(text) {
    if (this.#skipLineFeed && text.startsWith("\n")) text = text.slice(1);
    if (text !== "") this.#skipLineFeed = text.endsWith("\r");
    const lines = (this.#rest + text).split(LINE_END);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") this.#dispatch(events);
      else this.#field(line);
    }
    return events;
  }

  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#name = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }

  #dispatch(events) {
    if (this.#data.length > 0) {
      events.push({ event: this.#name || "message", data: this.#data.join("\n"), id: this.#id });
    }
    this.#name = "";
    this.#data = [];
  }
}

/** The events of a response body, as they come in. Throws what the body throws: AbortError, or a network error. */
export async function* readEvents(body) {
  const parser = new SseParser();
  const decoder = new TextDecoder(); // drops a byte order mark, as the standard asks
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops listening closes the connection
  }
}
