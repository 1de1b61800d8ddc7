// The notifications of all nodes: the live list, and one of them.
import { confirm, el, say, size, span, time } from "/page/dom.js";
import { t } from "/page/words.js";
import { act, all, get, nodes, who } from "/page/api.js";
import { contentSection } from "/page/body.js";

const EVERY_MS = 1000;
const PAGE = 100;
const FILTERS = ["q", "state", "backend", "route"];
const STATES = ["waiting", "pending", "dead", "done", "delivered", "duplicate", "refused", "offline", "timeout", "busy", "unreachable", "draining"];
const GOOD = ["delivered", "done", "duplicate"];
const WAIT = ["waiting", "under way", "pending", "stored"];

const word = (state) => (state === "under way" ? "waiting" : state);
const tone = (state) => (GOOD.includes(state) ? "good" : WAIT.includes(state) ? "wait" : "bad");

/** A state as a small label. */
export function chip(state) {
  const flat = state === "duplicate" || state === "stored" ? "" : tone(state);
  return el("span", { class: `chip ${flat}` }, t(`s_${word(state)}`));
}

function address(filters) {
  const query = new URLSearchParams();
  for (const key of FILTERS) if (filters[key]) query.set(key, filters[key]);
  const text = query.toString();
  return text ? `/?${text}` : "/";
}

function row(summary) {
  const why = tone(summary.state) === "good" ? null : summary.why;
  return el("a", { class: "row", href: `/?id=${summary.id}`, "data-id": summary.id, title: summary.id },
    el("span", { class: "time" }, time(summary.at)),
    el("span", { class: "state" }, chip(summary.state)),
    el("span", { class: "backend" }, summary.backend),
    el("span", { class: "route" }, summary.route),
    el("span", { class: "event", title: [summary.event, why].filter(Boolean).join(" · ") }, summary.event, summary.event && why ? " · " : "", why && el("span", { class: "dim" }, why)),
    el("span", { class: "took num" }, summary.took_ms === null ? "" : span(summary.took_ms)));
}

/** The rows in chunks: what is out of sight costs no layout. Newest first; ids sort by time. */
class Rows {
  constructor(list) {
    this.list = list;
    this.known = new Map(); // id -> { summary, node, element }
    this.order = []; // ids, newest first
  }

  set(summary, node, fresh) {
    const text = JSON.stringify(summary);
    const known = this.known.get(summary.id);
    if (known && known.text === text) return;
    const element = row(summary);
    if (known) {
      const focused = document.activeElement === known.element;
      known.element.replaceWith(element);
      if (focused) element.focus({ preventScroll: true });
      Object.assign(known, { text, element, node });
      return;
    }
    if (fresh) element.classList.add("fresh");
    let at = this.order.length;
    if (at && summary.id > this.order[at - 1]) {
      let low = 0;
      while (low < at) {
        const middle = (low + at) >> 1;
        if (this.order[middle] < summary.id) at = middle; else low = middle + 1;
      }
    }
    this.place(element, at);
    this.order.splice(at, 0, summary.id);
    this.known.set(summary.id, { text, element, node });
  }

  place(element, at) {
    if (at < this.order.length) {
      const next = this.known.get(this.order[at]).element;
      const chunk = next.parentElement;
      chunk.insertBefore(element, next);
      if (chunk.children.length > 2 * PAGE) {
        const rest = el("div", { class: "chunk" });
        rest.append(...[...chunk.children].slice(PAGE));
        chunk.after(rest);
      }
      return;
    }
    let last = this.list.lastElementChild;
    if (!last || last.children.length >= PAGE) {
      last = el("div", { class: "chunk" });
      this.list.append(last);
    }
    last.append(element);
  }

  /** Takes away what `node` no longer has from `low` on. */
  keep(ids, node, low) {
    for (const id of this.order.filter((id) => id >= low)) {
      const known = this.known.get(id);
      if (known.node !== node || ids.has(id)) continue;
      const chunk = known.element.parentElement;
      known.element.remove();
      if (!chunk.children.length) chunk.remove();
      this.known.delete(id);
      this.order.splice(this.order.indexOf(id), 1);
    }
  }
}

/** The live list. */
export function listView(main, query, { go, failed }) {
  const filters = Object.fromEntries(FILTERS.map((key) => [key, query.get(key) || ""]));
  const filtered = FILTERS.some((key) => filters[key]);
  const stop = new AbortController();
  const list = el("div", { class: "list" });
  const rows = new Rows(list);
  const end = el("div", { class: "end" }, t("loading"));
  const counts = el("div", { class: "counts" });
  const notes = el("div", { class: "notes" });
  const state = new Map(); // node -> { version, next, done, outbox, problem, pages: [{id, summary}] }

  const search = el("input", { type: "search", value: filters.q, placeholder: t("search"), "aria-label": t("search"), name: "q", maxlength: 200 });
  const states = el("select", { "aria-label": t("state"), name: "state" }, el("option", { value: "" }, t("any_state")),
    STATES.map((value) => el("option", { value, selected: value === filters.state }, t(`s_${value}`))));
  const short = (name) => el("input", { class: "short", name, value: filters[name], placeholder: t(name), "aria-label": t(name), maxlength: 64 });
  const form = el("form", {
    class: "filters", role: "search",
    submit(event) {
      event.preventDefault();
      go(address(Object.fromEntries([...new FormData(form)].map(([key, value]) => [key, value.trim()]))));
    },
  }, search, states, short("backend"), short("route"), filtered && el("a", { href: "/" }, t("clear")), el("button", { hidden: true }));
  states.addEventListener("change", () => form.requestSubmit());
  form.addEventListener("change", (event) => { if (event.target !== states && event.target.value === "" && filters[event.target.name]) form.requestSubmit(); });

  main.replaceChildren(form, counts, notes,
    el("div", { class: "rowhead", "aria-hidden": "true" }, ["time", "state", "backend", "route", "event"].map((key) => el("span", {}, t(key))), el("span", { class: "took" }, t("took"))),
    list, end);

  // Of a node that has more, nothing older than its last is shown: another page of it belongs in between.
  const frontier = () => [...state.values()].reduce((least, node) => (node.next && node.next > least ? node.next : least), "");
  function place() {
    const least = frontier();
    for (const [node, its] of state) {
      its.later = its.later.filter((summary) => {
        if (summary.id < least) return true;
        rows.set(summary, node, false);
        return false;
      });
    }
  }

  function tell() {
    const known = [...state.values()].filter((its) => its.outbox);
    const sum = (key) => known.reduce((total, its) => total + its.outbox[key], 0);
    const link = (key) => el("a", { href: address({ ...filters, state: key }) }, t(`${key}_n`, sum(key)));
    counts.replaceChildren(el("span", {}, t("shown", rows.order.length)), ...(known.length ? [link("pending"), link("dead")] : []),
      ...(sum("unknown_backend") ? [el("a", { class: "warn", href: "/?view=backends" }, t("never_here_n", sum("unknown_backend")))] : []));
    const names = [...state.values()].map((its) => its.name);
    const unasked = unknown.filter((name) => !names.includes(name) && ![...state.values()].some((its) => its.problem));
    const words = [...state].filter(([, its]) => its.problem).map(([node, its]) => t("node_silent", node || who.session.node, its.problem.message))
      .concat(unasked.map((name) => t("node_unknown", name)));
    if (notes.textContent !== words.join("")) notes.replaceChildren(...words.map((text) => el("p", { class: "note" }, text)));
    const busy = [...state.values()].some((its) => its.loading);
    const more = [...state.values()].some((its) => its.next);
    end.replaceChildren(more && !busy ? el("button", { type: "button", click: older }, t("more"))
      : busy || !state.size ? t(rows.order.length || more ? "searching" : "loading")
      : rows.order.length ? t("no_more") : filtered ? t("none_found") : t("none_yet"));
  }

  async function newest(node) {
    const its = state.get(node) || { later: [], version: "", next: null, pages: 0 };
    try {
      const answer = await get("/notifications", { ...filters, limit: PAGE, since: its.version }, node, stop.signal);
      if (!answer) { state.delete(node); return; }
      const first = !state.has(node) || its.problem;
      state.set(node, its);
      its.problem = null;
      its.name = answer.node;
      its.outbox = answer.outbox;
      if (answer.unchanged) return;
      its.version = answer.version;
      const ids = new Set(answer.notifications.map((summary) => summary.id));
      const least = frontier();
      for (const summary of answer.notifications.toReversed()) {
        if (summary.id >= least || !first) rows.set(summary, node, !first);
      }
      const last = answer.next || "";
      rows.keep(ids, node, last);
      if (first || its.pages === 0) {
        its.next = answer.next;
        if (first) its.later = answer.notifications.filter((summary) => summary.id < least);
        place();
      }
    } catch (problem) {
      if (problem.name === "AbortError" || problem.status === 401) throw problem;
      its.problem = problem;
      its.version = "";
      state.set(node, its);
    }
  }

  async function older() {
    const least = frontier();
    const behind = [...state].filter(([, its]) => its.next && its.next >= least && !its.loading);
    await Promise.all(behind.map(async ([node, its]) => {
      its.loading = true;
      tell();
      try {
        const answer = await get("/notifications", { ...filters, limit: PAGE, before: its.next }, node, stop.signal);
        its.later.push(...answer.notifications);
        its.next = answer.next;
        its.pages += 1;
      } catch (problem) {
        its.problem = problem;
        failed(problem);
      } finally {
        its.loading = false;
      }
    }));
    place();
    tell();
    // A search that found little in what was looked at goes on by itself while its end is in sight.
    if (behind.length && isNear && !stop.signal.aborted) setTimeout(() => { if (isNear && frontier()) older(); }, 0);
  }

  let unknown = [];
  let isNear = false;
  const near = new IntersectionObserver((entries) => {
    isNear = entries.at(-1).isIntersecting;
    if (isNear && frontier()) older();
  }, { rootMargin: "800px" });

  // Each node by itself: one that is silent must not keep the others' news back.
  async function poll(node) {
    try {
      if (!document.hidden) {
        await newest(node);
        tell();
        if (isNear && frontier() && ![...state.values()].some((its) => its.loading)) older();
      }
      if (!stop.signal.aborted && nodes().includes(node)) setTimeout(poll, EVERY_MS, node);
    } catch (problem) {
      failed(problem);
    }
  }
  for (const node of nodes()) poll(node);
  // Nodes that Redis knows, and that nobody has told this page of.
  get("/status", {}, "", stop.signal).then((status) => {
    unknown = [...status.nodes.map(({ node }) => node), ...status.silent];
    tell();
  }).catch(() => {});
  near.observe(end);

  return () => { stop.abort(); near.disconnect(); };
}

/** One notification. */
export function oneView(main, query, { go, failed }) {
  const id = query.get("id");
  const stop = new AbortController();
  let timer;
  let shown = "";

  async function load() {
    try {
      const answers = await all("/trace", { key: id }, stop.signal);
      const found = answers.flatMap(({ node, answer }) => (answer ? answer.found.map((one) => ({ node, name: answer.node, ...one })) : []));
      const problems = answers.filter(({ problem }) => problem);
      const text = JSON.stringify([found, problems.map(({ problem }) => problem.message)]);
      if (text !== shown) {
        shown = text;
        render(found, problems);
      }
      // It changes while it waits; after that only an action changes it.
      if (!stop.signal.aborted) timer = setTimeout(load, found.some((one) => WAIT.includes(one.state)) ? EVERY_MS : 5 * EVERY_MS);
    } catch (problem) {
      failed(problem);
    }
  }

  let content = null;
  function render(found, problems) {
    const silent = problems.map(({ node, problem }) => el("p", { class: "note" }, t("node_silent", node || who.session.node, problem.message)));
    const back = el("p", {}, el("a", { href: "/" }, `‹ ${t("back")}`));
    if (!found.length) {
      main.replaceChildren(back, el("h1", { class: "mono" }, id), ...silent, el("p", {}, t("not_found", id)));
      return;
    }
    // What lies in an outbox says most.
    const one = found.find((each) => each.seq !== undefined) || found.find((each) => each.id === id) || found[0];
    content ||= contentSection(one, failed);
    const focused = document.activeElement && document.activeElement.id;
    main.replaceChildren(back, el("h1", { class: "mono" }, one.id),
      el("div", { class: "lead" }, chip(one.state), el("strong", {}, t(`l_${word(one.state)}`, one.backend))),
      ...silent, ...actions(one),
      el("div", { class: "two" }, facts(one), timeline(found)), content);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function actions(one) {
    if (one.seq === undefined || !who.session.act || one.state === "done") return [];
    const button = (what, path) => el("button", {
      type: "button", id: `act-${what}`, class: what === "drop" ? "danger" : "main",
      async click() {
        const facts = el("span", { class: "mono" }, [one.id, one.event].filter(Boolean).join(" · "));
        if (!await confirm(t(`${what}_title`), [facts, t(`${what}_1`, one.backend)], t(`${what}_yes`), t("cancel"), what === "drop")) return;
        try {
          const done = await act(path, { ids: [one.id], pending: one.state === "pending" }, one.node);
          say(t(done.in_hand ? "in_hand" : done.changed ? `${what}_done` : "nothing_changed"));
          clearTimeout(timer);
          if (what === "drop" && done.changed) return go("/");
          await load();
        } catch (problem) {
          failed(problem);
        }
      },
    }, t(what));
    return [el("div", { class: "acts" }, button("again", "/outbox/retry"), button("drop", "/outbox/drop"))];
  }

  function facts(one) {
    const search = (key, value) => el("a", { href: address({ [key]: value }) }, value);
    const fact = (key, value) => (value === undefined || value === null || value === "" ? [] : [el("dt", {}, t(key)), el("dd", {}, value)]);
    return el("section", {}, el("h2", {}, t("facts")), el("dl", { class: "facts" },
      fact("backend", search("backend", one.backend)), fact("route", search("route", one.route)), fact("event", one.event && search("q", one.event)),
      fact("verified", one.verified === "none" ? t("not_verified") : one.verified), fact("taken", time(one.at, "whole")), fact("node", one.name),
      fact("tries", one.tries), fact("size", one.bytes === undefined ? undefined : size(one.bytes)), fact("why", one.why)));
  }

  function timeline(found) {
    const steps = found.flatMap((one) => one.timeline.map((step) => ({ ...step, node: one.name, id: one.id })));
    steps.sort((a, b) => a.at - b.at);
    const several = new Set(steps.map((step) => step.node)).size > 1;
    const item = (step, at) => {
      const good = step.what === "acked" || (step.what === "answered" && step.detail.startsWith("ok"));
      const bad = ["nacked", "dead", "lost", "unanswered", "dropped"].includes(step.what) || (step.what === "answered" && !good);
      const since = at ? step.at - steps[at - 1].at : 0;
      return el("li", { class: good ? "good" : bad ? "bad" : "" },
        el("span", {}, time(step.at, "exact"), since ? el("span", { class: "dim" }, ` +${span(since)}`) : ""),
        el("span", {}, t(`w_${step.what}`), step.detail ? el("span", { class: "detail" }, ` · ${step.detail}`) : "",
          several ? el("div", { class: "node" }, step.node) : "", step.id !== id ? el("div", { class: "node mono" }, step.id) : ""));
    };
    return el("section", {}, el("h2", {}, t("timeline")), el("ol", { class: "timeline" }, steps.map(item)));
  }

  main.replaceChildren(el("p", { class: "dim" }, t("loading")));
  load();
  return () => { stop.abort(); clearTimeout(timer); };
}
