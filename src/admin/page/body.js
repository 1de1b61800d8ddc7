// What a provider sent: as text in its charset, laid out as JSON, XML or a form, and as bytes. Shown as text, always.
import { el, say, size } from "/page/dom.js";
import { t } from "/page/words.js";
import { get, who } from "/page/api.js";

const CHARSETS = ["utf-8", "gbk", "gb18030", "big5", "shift_jis", "euc-kr", "windows-1252", "utf-16le"];
const TEXT_MAX = 256 * 1024;
const BYTES_MAX = 16 * 1024;

function decodeBase64(text) {
  const binary = atob(text);
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

function decoded(bytes, charset) {
  try {
    return new TextDecoder(charset).decode(bytes);
  } catch {
    return new TextDecoder("utf-8").decode(bytes);
  }
}

function isKnown(charset) {
  try {
    return Boolean(new TextDecoder(charset));
  } catch {
    return false;
  }
}

/** The charset of a body, and why that one. */
export function charsetOf(head, bytes) {
  const start = decoded(bytes.subarray(0, 4096), "windows-1252");
  const type = /^content-type:.*?charset="?([\w.:-]+)/im.exec(head);
  if (type && isKnown(type[1])) return { charset: type[1].toLowerCase(), why: t("from_type") };
  const xml = /^\s*<\?xml[^>]*encoding=["']([\w.:-]+)["']/i.exec(start);
  if (xml && isKnown(xml[1])) return { charset: xml[1].toLowerCase(), why: t("from_xml") };
  const field = /(?:^|&)(?:_input_)?charset=([\w.:-]+)(?:&|$)/i.exec(decoded(bytes, "windows-1252"));
  if (field && isKnown(field[1])) return { charset: field[1].toLowerCase(), why: t("from_field") };
  for (const charset of ["utf-8", "gbk"]) {
    try {
      new TextDecoder(charset, { fatal: true }).decode(bytes);
      return { charset, why: charset === "utf-8" ? "" : t("guessed") };
    } catch {
      // the next one
    }
  }
  return { charset: "windows-1252", why: t("guessed") };
}

/** Fields of a form, their bytes read in `charset`. */
export function formFields(bytes, charset) {
  const text = decoded(bytes, "windows-1252");
  if (!/^[^\s=&<{[]+=[^\s<]*$/.test(text.trim())) return null;
  const read = (part) => {
    const out = [];
    for (let at = 0; at < part.length; at++) {
      const hex = part[at] === "%" ? /^%([0-9a-f]{2})/i.exec(part.slice(at, at + 3)) : null;
      if (hex) { out.push(parseInt(hex[1], 16)); at += 2; } else out.push(part[at] === "+" ? 32 : part.charCodeAt(at) & 255);
    }
    return decoded(Uint8Array.from(out), charset);
  };
  return text.trim().split("&").map((pair) => {
    const at = pair.indexOf("=");
    return at < 0 ? [read(pair), ""] : [read(pair.slice(0, at)), read(pair.slice(at + 1))];
  });
}

/** JSON with line breaks and indents; its numbers and strings stay as they were sent. `null`: it is no JSON. */
export function jsonLaidOut(text) {
  try {
    const value = JSON.parse(text);
    if (value === null || typeof value !== "object") return null;
  } catch {
    return null;
  }
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) || [];
  let out = "";
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  tokens.forEach((token, at) => {
    const next = tokens[at + 1];
    if (token === "{" || token === "[") {
      out += token;
      depth += 1;
      if (next !== "}" && next !== "]") out += line();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      if (!/^[{[]$/.test(tokens[at - 1])) out += line();
      out += token;
    } else if (token === ",") out += `,${line()}`;
    else out += token === ":" ? ": " : token;
  });
  return out;
}

/** XML with line breaks and indents. `null`: it does not look like any. */
export function xmlLaidOut(text) {
  const trimmed = text.trim();
  if (!/^<[?!a-z_]/i.test(trimmed) || !trimmed.endsWith(">")) return null;
  const parts = trimmed.match(/<!\[CDATA\[[^]*?\]\]>|<!--[^]*?-->|<[^>]*>|[^<]+/g) || [];
  let out = "";
  let depth = 0;
  let inline = false;
  for (const part of parts) {
    const isTag = /^<[/?!a-z_]/i.test(part) && !part.startsWith("<![CDATA[");
    if (!isTag) {
      if (part.trim() === "") continue;
      out += part.trim();
      inline = true;
      continue;
    }
    const closes = part.startsWith("</");
    if (closes) depth = Math.max(0, depth - 1);
    if (out && !(closes && inline)) out += `\n${"  ".repeat(depth)}`;
    out += part;
    inline = !closes && !/\/>$|^<[?!]/.test(part);
    if (inline) depth += 1;
    if (closes) inline = false;
  }
  return out;
}

function hex(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const part = [...bytes.subarray(at, at + 16)];
    const digits = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(47);
    const chars = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${digits}  ${chars}`);
  }
  return lines.join("\n");
}

/** The section that shows what `one` carried; it asks for that when it is opened. */
export function contentSection(one, failed) {
  const section = el("section", { id: "content" }, el("h2", {}, t("content")));
  if (!who.session.bodies) {
    section.append(el("p", { class: "dim" }, t("no_right")));
    return section;
  }
  get(`/notifications/${one.id}/content`, {}, one.node).then((content) => show(section, one, content)).catch(failed);
  return section;
}

function show(section, one, content) {
  const say1 = (key) => section.append(el("p", { class: "dim" }, t(key)));
  if (content.damaged) return section.append(el("p", { class: "note bad" }, t("damaged")));
  if (content.kept === "none") return say1("not_kept");
  section.append(el("h3", {}, t("headers")));
  if (content.head) section.append(el("pre", { class: "body", id: "head", tabindex: "0" }, content.head.trimEnd()));
  else say1("no_head");
  const bytes = decodeBase64(content.body_base64);
  section.append(el("h3", {}, `${t("body")} · ${size(bytes.length)}`));
  if (!bytes.length) return say1("no_body");
  section.append(bodyPart(one, content.head, bytes));
}

function bodyPart(one, head, bytes) {
  const found = charsetOf(head, bytes);
  const part = bytes.subarray(0, TEXT_MAX);
  const panel = el("div", { id: "body", role: "tabpanel" });
  const why = el("span", { class: "dim" }, found.why);
  const names = CHARSETS.includes(found.charset) ? CHARSETS : [found.charset, ...CHARSETS];
  const charset = el("select", { "aria-label": t("charset"), id: "charset", change: () => { why.textContent = ""; render(); } },
    names.map((value) => el("option", { value, selected: value === found.charset }, value.toUpperCase())));

  function laidOut() {
    const whole = bytes.length <= TEXT_MAX;
    const fields = whole && formFields(part, charset.value);
    if (fields) {
      return { name: t("as_form"), view: el("div", { class: "scroll" }, el("table", { class: "fields" },
        el("thead", {}, el("tr", {}, el("th", {}, t("field")), el("th", {}, t("value")))),
        el("tbody", {}, fields.map(([name, value]) => el("tr", {}, el("td", { class: "mono" }, name), el("td", { class: "mono" }, value)))))) };
    }
    const text = decoded(part, charset.value);
    const json = whole && jsonLaidOut(text);
    if (json) return { name: t("as_json"), view: el("pre", { class: "body", tabindex: "0" }, json) };
    const xml = whole && xmlLaidOut(text);
    return xml ? { name: t("as_xml"), view: el("pre", { class: "body", tabindex: "0" }, xml) } : null;
  }

  let kind = laidOut() ? "laid_out" : "text";
  const tabs = el("div", { class: "tabs" });
  function render() {
    const laid = laidOut();
    if (!laid && kind === "laid_out") kind = "text";
    const tab = (name, label) => el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-selected": String(name === kind), click: () => { kind = name; render(); document.getElementById(`tab-${name}`).focus(); } }, label);
    tabs.replaceChildren(el("span", { role: "tablist" }, laid && tab("laid_out", laid.name), " ", tab("text", t("text")), " ", tab("bytes", t("bytes"))),
      charset, why, el("span", { class: "gap" }), el("button", { type: "button", click: copy }, t("copy")), el("button", { type: "button", click: save }, t("save")));
    charset.hidden = kind === "bytes";
    const most = kind === "bytes" ? BYTES_MAX : TEXT_MAX;
    const cut = bytes.length > most ? el("p", { class: "dim" }, t("cut", size(most), size(bytes.length))) : "";
    panel.replaceChildren(cut, kind === "laid_out" ? laid.view
      : kind === "text" ? el("pre", { class: "body", tabindex: "0" }, decoded(part, charset.value))
      : el("pre", { class: "body bytes", tabindex: "0" }, hex(bytes.subarray(0, BYTES_MAX))));
  }

  function copy() {
    navigator.clipboard?.writeText(panel.innerText).then(() => say(t("copied")), () => {});
  }
  function save() {
    const address = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
    el("a", { href: address, download: `${one.id}.body` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }
  render();
  return el("div", {}, tabs, panel);
}
