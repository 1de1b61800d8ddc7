// Elements out of plain values: everything that is shown is text, whatever is in it.
import { language } from "/page/words.js";

/** An element with attributes (a function: a listener for the event of that name) and children (texts and elements). */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same, of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

const date = (options) => new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", options);
const clock = date({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayAndClock = date({ month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const whole = date({ year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minute = date({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** Unix milliseconds as a `<time>` in local time, with UTC as its title. */
export function time(ms, kind = "short") {
  const at = new Date(ms);
  const fraction = `.${String(ms % 1000).padStart(3, "0")}`;
  const today = at.toDateString() === new Date().toDateString();
  const text = kind === "whole" ? whole.format(at) + fraction
    : kind === "exact" ? (today ? clock : dayAndClock).format(at) + fraction
    : kind === "minute" ? minute.format(at)
    : (today ? clock : dayAndClock).format(at);
  return el("time", { datetime: at.toISOString(), title: at.toISOString(), class: "num" }, text);
}

/** Milliseconds, shortly. */
export function span(ms) {
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
  return `${Math.floor(ms / 86_400_000)} d`;
}

/** Bytes, shortly. */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** Says something at the foot of the page, for a while; screen readers read it. */
let saidTimer;
export function say(text) {
  const said = document.getElementById("said");
  said.textContent = text;
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => { said.textContent = ""; }, 8000);
}

/** Asks a second time; resolves to whether the answer was yes. The safe answer has the focus. */
export function confirm(title, lines, yes, no, danger) {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-labelledby": "dialog-title", close: () => { dialog.remove(); resolve(dialog.returnValue === "yes"); } },
      el("h2", { id: "dialog-title" }, title),
      lines.map((line) => el("p", {}, line)),
      el("div", { class: "acts" },
        el("button", { type: "button", autofocus: true, id: "dialog-no", click: () => dialog.close("no") }, no),
        el("button", { type: "button", id: "dialog-yes", class: danger ? "danger" : "main", click: () => dialog.close("yes") }, yes)));
    document.body.append(dialog);
    dialog.showModal();
  });
}
