// What the nodes are doing: their backends, and how they are.
import { confirm, el, say, size, span, svg, time } from "/page/dom.js";
import { t } from "/page/words.js";
import { act, all, who } from "/page/api.js";

const EVERY_MS = 2000;
const HOUR_MINUTES = 60;

/** Asks all nodes for `path` again and again, and shows what they say when it has changed. */
function live(path, failed, render) {
  const stop = new AbortController();
  let timer;
  let shown = "";
  async function load() {
    try {
      if (!document.hidden) {
        const answers = await all(path, {}, stop.signal);
        const text = JSON.stringify(answers.map(({ answer, problem }) => answer || problem.message));
        if (text !== shown) {
          shown = text;
          const focused = document.activeElement?.id;
          render(answers, load);
          if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
        }
      }
      if (!stop.signal.aborted) timer = setTimeout(load, EVERY_MS);
    } catch (problem) {
      failed(problem);
    }
  }
  load();
  return () => { stop.abort(); clearTimeout(timer); };
}

const silent = (answers) => answers.filter(({ problem }) => problem)
  .map(({ node, problem }) => el("p", { class: "note" }, t("node_silent", node || who.session.node, problem.message)));

const cell = (name, value, number) => el("td", { "data-name": t(name), class: number ? "num" : "" }, value);

/** Who is connected where, and what waits for whom. */
export function backendsView(main, query, { failed }) {
  main.replaceChildren(el("p", { class: "dim" }, t("loading")));
  return live("/backends", failed, (answers, again) => {
    const known = new Map(); // id -> { pending, dead, at: [{ node, name, ...session }] }
    for (const { node, answer } of answers) {
      for (const backend of answer ? answer.backends : []) {
        const one = known.get(backend.id) || { id: backend.id, pending: 0, dead: 0, at: [] };
        one.pending += backend.pending;
        one.dead += backend.dead;
        if (backend.pending) one.unknown = one.unknown !== false && backend.unknown;
        one.like ||= backend.like;
        if (backend.session) one.at.push({ node, name: answer.node, ...backend.session });
        known.set(backend.id, one);
      }
    }
    const ids = [...known.keys()].sort();
    const lost = ids.map((id) => known.get(id)).filter((one) => one.pending && !one.at.length);
    const row = (one, session) => el("tr", {},
      el("td", {}, el("a", { href: `/?backend=${encodeURIComponent(one.id)}` }, one.id)),
      cell("node", session ? session.name : el("span", { class: "chip wait" }, t("away"))),
      cell("since", session ? time(session.since_unix_ms) : t("never")),
      cell("credit", session ? session.credit : t("never"), true), cell("in_flight", session ? session.in_flight : t("never"), true),
      cell("waiting_n", session ? session.waiting : t("never"), true),
      cell("last_answer", session && session.last_answer_unix_ms ? time(session.last_answer_unix_ms) : t("never")),
      cell("pending", one.pending ? el("a", { href: `/?backend=${encodeURIComponent(one.id)}&state=pending` }, one.pending) : 0, true),
      cell("dead", one.dead ? el("a", { href: `/?backend=${encodeURIComponent(one.id)}&state=dead` }, one.dead) : 0, true),
      el("td", {}, session && who.session.act ? button(one.id, session, again) : ""));
    const head = ["backend", "node", "since", "credit", "in_flight", "waiting_n", "last_answer", "pending", "dead"];
    const numbers = ["credit", "in_flight", "waiting_n", "pending", "dead"];
    main.replaceChildren(el("h1", {}, t("backends")), ...silent(answers),
      ...lost.map((one) => el("p", { class: "note" }, el("strong", {}, one.id), ` · ${t("pending_n", one.pending)}: ${t(one.unknown ? "never_was_here" : "waits_for_absent")}`,
        one.unknown && one.like ? ` ${t("is_known", one.like)}` : "")),
      ids.length ? el("div", { class: "scroll" }, el("table", { class: "cards" },
        el("thead", {}, el("tr", {}, head.map((key) => el("th", { class: numbers.includes(key) ? "num" : "" }, t(key))), el("th", {}))),
        el("tbody", {}, ids.flatMap((id) => { const one = known.get(id); return one.at.length ? one.at.map((session) => row(one, session)) : [row(one, null)]; }))))
        : el("p", { class: "dim" }, t("no_backends")));
  });

  function button(id, session, again) {
    return el("button", {
      type: "button", class: "plain", id: `disconnect-${id}`,
      async click() {
        if (!await confirm(t("disconnect_title", id), [t("disconnect_1", session.name)], t("disconnect_yes"), t("cancel"), true)) return;
        try {
          await act("/backends/disconnect", { id, since_unix_ms: session.since_unix_ms }, session.node);
          say(t("disconnect_done", id));
          await again();
        } catch (problem) {
          failed(problem);
        }
      },
    }, t("disconnect"));
  }
}

/** A minute of a chart: its place from the left, in 60. */
function slots(minutes) {
  const last = Math.floor(Date.now() / 60_000);
  return minutes.map((minute) => ({ ...minute, x: HOUR_MINUTES - 1 - (last - Math.floor(minute.from_unix_ms / 60_000)) })).filter(({ x }) => x >= 0 && x < HOUR_MINUTES);
}

function chart(...marks) {
  return el("div", {}, svg("svg", { class: "chart", viewBox: "0 0 60 72", preserveAspectRatio: "none", "aria-hidden": "true" }, marks),
    el("div", { class: "axis", "aria-hidden": "true" }, ["-60", "-45", "-30", "-15", "0 min"].map((text) => el("span", {}, text))));
}

function rates(minutes) {
  const parts = [["delivered", "c1", "ok_now"], ["stored", "c2", "later"], ["failed", "c3", "failed"], ["duplicate", "c4", "dup"]];
  const value = (minute, key) => (key === "failed" ? ["refused", "offline", "timeout", "busy", "draining", "unreachable"].reduce((sum, each) => sum + minute.outcomes[each], 0) : minute.outcomes[key]);
  const total = (minute) => parts.reduce((sum, [key]) => sum + value(minute, key), 0);
  const most = Math.max(1, ...minutes.map(total));
  const bars = slots(minutes).flatMap((minute) => {
    let y = 72;
    return parts.map(([key, name]) => {
      const height = (value(minute, key) / most) * 68;
      y -= height;
      return height ? svg("rect", { x: minute.x + 0.1, y, width: 0.8, height, class: name }) : "";
    });
  });
  const sums = parts.map(([key, , label], at) => el("span", { class: `key k${at + 1}` }, `${t(label)} ${minutes.reduce((sum, minute) => sum + value(minute, key), 0)}`));
  return el("figure", {}, el("figcaption", {}, el("span", {}, `${t("per_minute")} (${t("most", minutes.length ? most : 0)})`), sums), chart(bars));
}

function latencies(minutes) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
  const acked = slots(minutes).filter((minute) => minute.acks > 0);
  const height = (ms) => 70 - (ms === null ? steps.length : steps.indexOf(ms) + 0.5) * (66 / steps.length);
  const line = (key, name) => {
    const at = acked.map((minute) => `${minute.x + 0.1},${height(minute[key])} ${minute.x + 0.9},${height(minute[key])}`).join(" ");
    return at ? svg("polyline", { points: at, class: name }) : "";
  };
  const last = acked.at(-1);
  const words = (ms) => (ms === null ? t("beyond") : t("within", span(ms)));
  return el("figure", {}, el("figcaption", {}, el("span", {}, t("ack_time")),
    el("span", { class: "key k1" }, `${t("median")} ${last ? words(last.p50_ms) : t("never")}`), el("span", { class: "key k2" }, `${t("p99")} ${last ? words(last.p99_ms) : t("never")}`)),
  chart(line("p99_ms", "l2"), line("p50_ms", "l1")));
}

function nodeCard(answer) {
  const fact = (key, value) => [el("dt", {}, t(key)), el("dd", {}, value)];
  const { bus, outbox } = answer;
  const stored = outbox ? [el("span", {}, `${t("pending_n", outbox.pending)}, ${t("dead_n", outbox.dead)}`), outbox.pending ? `, ${t("oldest")} ${span(outbox.oldest_ms)}` : "",
    outbox.unknown_backend ? el("div", {}, el("a", { href: "/?view=backends" }, t("never_here_n", outbox.unknown_backend))) : ""] : t("no_outbox");
  return el("section", { class: "node-card" },
    el("h1", {}, answer.node, " ", el("span", { class: `chip ${answer.ready ? "good" : "bad"}` }, t(answer.ready ? "ready" : "not_ready"))),
    answer.reasons.map((reason) => el("p", { class: "note bad" }, reason)),
    el("div", { class: "charts" }, rates(answer.minutes), latencies(answer.minutes)),
    el("dl", { class: "facts" },
      fact("bus", `${bus.kind}: ${bus.up ? t("up") : t("down", bus.reason)}`), fact("outbox", stored),
      fact("sessions", answer.sessions), fact("connections", answer.http_connections), fact("memory", size(answer.memory_bytes)),
      fact("files", `${answer.fd_free} / ${answer.fd_total}`), fact("uptime", span(answer.uptime_ms)), fact("version", answer.version)),
    el("h2", {}, t("warnings")),
    answer.warnings.length ? answer.warnings.map((warning) => el("p", { class: "note" }, warning)) : el("p", { class: "dim" }, t("no_warnings")),
    el("h2", {}, t("refusals")),
    answer.refusals.length ? el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ["where", "reason", "count", "last"].map((key) => el("th", { class: key === "count" ? "num" : "" }, t(key))))),
      el("tbody", {}, answer.refusals.map((one) => el("tr", {}, el("td", {}, one.route ? `${t(`kind_${one.kind}`)} · ${one.route}` : t(`kind_${one.kind}`)),
        el("td", { class: "mono" }, one.reason), el("td", { class: "num" }, one.count), el("td", {}, time(one.last_unix_ms))))))) : el("p", { class: "dim" }, t("no_refusals")));
}

/** How the nodes are. */
export function healthView(main, query, { failed }) {
  main.replaceChildren(el("p", { class: "dim" }, t("loading")));
  return live("/health", failed, (answers) => {
    main.replaceChildren(...silent(answers), el("div", { class: "nodes" }, answers.filter(({ answer }) => answer).map(({ answer }) => nodeCard(answer))));
  });
}
