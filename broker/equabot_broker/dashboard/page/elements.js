// Elements and texts. A value becomes text, never markup: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

// Replaces what is in a container. An open <details>, the focus and the scroll position survive, by data-key.
function show(id, ...children) {
  const at = byId(id);
  const open = new Set([...at.querySelectorAll("details[open]")].map((one) => one.dataset.key));
  const focused = at.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : undefined;
  const scrolled = at.scrollTop;
  at.replaceChildren(...children.flat(Infinity).filter((child) => child instanceof Node));
  for (const one of at.querySelectorAll("details[data-key]")) {
    one.open = open.has(one.dataset.key);
    if (one.dataset.key === focused) one.querySelector("summary").focus();
  }
  at.scrollTop = scrolled;
}

function write(id, text, kind = null) {
  const at = byId(id);
  if (at.textContent !== text) at.textContent = text;
  if (kind !== null) at.className = kind;
}

// --- time: the server's clock, in seconds

let skew = 0;
function setClock(seconds) {
  skew = seconds - Date.now() / 1000;
}
function now() {
  return Date.now() / 1000 + skew;
}

const UNITS = [[31536000, "y"], [86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
function span(seconds) {
  let rest = Math.max(Math.round(seconds), 0);
  if (rest >= 3600) rest = Math.round(rest / 60) * 60;
  const parts = [];
  for (const [size, unit] of UNITS) {
    const count = Math.floor(rest / size);
    if (count || (unit === "s" && !parts.length)) parts.push(`${count}${unit}`);
    else if (parts.length) break;
    rest -= count * size;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}
function relative(at) {
  if (Math.abs(at - now()) < 2) return "just now";
  return at >= now() ? `in ${span(at - now())}` : `${span(now() - at)} ago`;
}

// A text that goes with the time. `tick` writes all that are on the page again.
const ticking = new Map();
function timed(name, attributes, update) {
  const node = h(name, attributes);
  update(node);
  ticking.set(node, update);
  return node;
}
function when(at, before = "", attributes = {}) {
  return timed("time", { datetime: new Date(at * 1000).toISOString(), title: new Date(at * 1000).toLocaleString(), ...attributes },
    (node) => { node.textContent = before + relative(at); });
}
function tick() {
  for (const [node, update] of ticking) {
    if (node.isConnected) update(node);
    else ticking.delete(node);
  }
}

function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  return seconds < 1 ? `${Number((seconds * 1000).toPrecision(3))} ms` : `${Number(seconds.toPrecision(3))} s`;
}
