// What the page asks the relay, and of which nodes.
import { t } from "/page/words.js";

/** Who is logged in; set by the start of the page. */
export const who = { session: null };

/** An answer that is none of 200. */
export class Problem extends Error {
  constructor(status, text) {
    super(text.trim());
    this.status = status;
  }
}

// Addresses of admin.nodes that lead to the node that is asked anyway.
const own = new Set();

/** The nodes to ask: "" is the one that serves this page. */
export function nodes() {
  return ["", ...who.session.others.filter((address) => !own.has(address))];
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, t("no_answer", error.message));
  }
  if (answer.ok) return answer;
  throw new Problem(answer.status, await answer.text());
}

function target(path, parameters, node) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) if (value) query.set(key, value);
  if (node) query.set("node", node);
  const text = query.toString().replaceAll("+", "%20");
  return text ? `${path}?${text}` : path;
}

/** GETs JSON. */
export async function get(path, parameters = {}, node = "", signal = undefined) {
  const answer = await (await ask(target(path, parameters, node), { signal })).json();
  if (node && answer.node && answer.node === who.session.node) {
    own.add(node);
    return null; // the same node by its other address
  }
  return answer;
}

/** POSTs what changes something. The header is one that no other site can send. */
export async function act(path, body, node = "") {
  const answer = await ask(target(path, {}, node), {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-Payrelay-Action": "1" },
  });
  return (answer.headers.get("content-type") || "").includes("json") ? answer.json() : null;
}

/** Asks all nodes at once: `{ node, answer }` or `{ node, problem }` of each, but not one node twice. */
export async function all(path, parameters = {}, signal = undefined) {
  const asked = nodes().map(async (node) => {
    try {
      return { node, answer: await get(path, parameters, node, signal) };
    } catch (problem) {
      if (problem.name === "AbortError" || problem.status === 401) throw problem;
      return { node, problem };
    }
  });
  return (await Promise.all(asked)).filter(({ answer, problem }) => answer || problem);
}
