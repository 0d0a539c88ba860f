/* Small helpers for the page. Text reaches the page through textContent only. */

export const byId = (id) => document.getElementById(id);

export function element(tag, { className, text, ...data } = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  Object.assign(made.dataset, data);
  return made;
}

export function showText(id, text) {
  const target = byId(id);
  if (target && target.textContent !== text) target.textContent = text;
}

/** 7.4 ms, 182 ms, 1.24 s, 12.4 s */
export function formatMs(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

const COUNT = new Intl.NumberFormat("en");
export const formatCount = (count) => COUNT.format(count);

export function plural(count, one, many = `${one}s`) {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}
