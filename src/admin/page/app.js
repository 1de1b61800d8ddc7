// The start of the page: who is logged in, which view the address asks for, and the way between them.
import { el, say } from "/page/dom.js";
import { language, t } from "/page/words.js";
import { Problem, act, get, who } from "/page/api.js";
import { listView, oneView } from "/page/notifications.js";
import { backendsView, healthView } from "/page/state.js";

const main = document.getElementById("main");
const top = document.getElementById("top");
let leave = null;

const views = { notifications: listView, backends: backendsView, health: healthView };

/** Goes to an address of this page. */
function go(address, replace = false) {
  history[replace ? "replaceState" : "pushState"]({ y: 0 }, "", address);
  show();
  main.focus({ preventScroll: true });
}

function header(view) {
  const link = (name) => el("a", { href: name === "notifications" ? "/" : `/?view=${name}`, "aria-current": name === view ? "page" : undefined }, t(name));
  const { node, name, login } = who.session;
  top.replaceChildren(
    el("a", { class: "name", href: "/", "aria-label": "payrelay" }, el("img", { src: "/page/icon.svg", alt: "" }), el("span", {}, "payrelay")),
    el("nav", { "aria-label": "payrelay" }, Object.keys(views).map(link)),
    el("div", { class: "who" }, el("span", {}, login ? `${name} · ${node}` : node),
      login && el("button", { class: "plain", type: "button", click: logOut }, t("logout"))));
  top.hidden = false;
}

async function logOut() {
  try {
    await act("/logout", {});
  } finally {
    who.session = null;
    show();
  }
}

function logIn(words) {
  top.hidden = true;
  const field = el("input", { type: "password", "aria-label": t("token"), autocomplete: "current-password", required: true });
  const note = el("p", { role: "alert" }, words || "");
  const form = el("form", {
    async submit(event) {
      event.preventDefault();
      try {
        who.session = await act("/login", { token: field.value.trim() });
        show();
      } catch (problem) {
        note.textContent = problem.status === 401 ? t("wrong_token") : problem.status === 429 ? t("too_many") : problem.message;
        field.select();
      }
    },
  }, el("input", { name: "username", autocomplete: "username", value: "payrelay", hidden: true }), field, el("button", { class: "main" }, t("login")));
  main.replaceChildren(el("section", { class: "login" }, el("h1", {}, "payrelay"), el("p", { class: "dim" }, t("login_words")), form, note));
  field.focus();
}

/** What a view does with a problem: a login that is over leads to the login, everything else is said. */
export function failed(problem) {
  if (problem.name === "AbortError") return;
  if (problem.status === 401) {
    who.session = null;
    show();
    return;
  }
  say(problem.message);
}

async function show() {
  if (leave) leave();
  leave = null;
  if (!who.session) {
    try {
      who.session = await get("/session");
    } catch (problem) {
      main.replaceChildren();
      if (problem.status === 401) return logIn("");
      const words = problem.status === 403 ? t("other_site") : problem.message;
      main.replaceChildren(el("p", { class: "note bad", role: "alert" }, words));
      if (problem instanceof Problem && problem.status !== 403) setTimeout(() => { if (!who.session) show(); }, 2000);
      return;
    }
  }
  const query = new URLSearchParams(location.search);
  const name = Object.hasOwn(views, query.get("view") || "") ? query.get("view") : "notifications";
  header(name);
  document.title = `${t(name)} · payrelay`;
  const view = query.get("id") ? oneView : views[name];
  leave = view(main, query, { go, failed });
}

addEventListener("popstate", show);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && typing) return typing.blur();
  if (event.key === "Escape" && new URLSearchParams(location.search).get("id")) return history.length > 1 ? history.back() : go("/");
  if (typing) return;
  if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); } else go("/");
  }
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  const rows = step ? [...document.querySelectorAll("a.row")] : [];
  if (rows.length) {
    const at = rows.indexOf(document.activeElement);
    const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))];
    event.preventDefault();
    next.focus();
  }
});

document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
document.getElementById("skip").textContent = t("skip");
show();
