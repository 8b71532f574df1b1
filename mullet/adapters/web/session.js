// Who is at the page, and how it talks to the daemon: every request carries the token in a header, never in an address.

const facility = document.querySelector("meta[name=facility]").content;
export const base = `v1/facilities/${encodeURIComponent(facility)}/`;
const RETRY_S = [1, 2, 4, 8];

// A link from the terminal brings the token behind the #, which browsers never send anywhere.
const brought = new URLSearchParams(location.hash.slice(1)).get("token");
if (brought) {
  sessionStorage.setItem("mullet.token", brought);
  history.replaceState(null, "", location.pathname);
}

export const session = {
  facility,
  get token() { return sessionStorage.getItem("mullet.token"); },
  get owner() { return localStorage.getItem("mullet.owner") ?? ""; },
  keep(token, owner) {
    if (token) sessionStorage.setItem("mullet.token", token);
    localStorage.setItem("mullet.owner", owner);
  },
  forget() { sessionStorage.removeItem("mullet.token"); },
};

export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `the daemon answered ${status}`);
    this.status = status;
    this.problems = problem?.problems ?? [];
  }
}

function headers(more = {}) {
  return session.token ? { ...more, Authorization: `Bearer ${session.token}` } : more;
}

export async function call(method, path, body) {
  const request = { method, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }), cache: "no-store" };
  if (body !== undefined) request.body = JSON.stringify(body);
  const answer = await fetch(base + path, request);
  const parsed = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, parsed);
  return parsed;
}

// EventSource cannot send headers, so the stream is read by hand.
export async function follow(onStatus, onState) {
  for (let failures = 0; ; failures += 1) {
    try {
      const answer = await fetch(`${base}events`, { headers: headers(), cache: "no-store" });
      if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
      onState("live");
      for await (const event of parsed(answer.body)) {
        failures = 0;
        if (event.name === "status") onStatus(JSON.parse(event.data));
      }
      onState("lost");
    } catch (error) {
      if (await onState(error.status === 401 ? "locked" : "lost", error)) {
        failures = -1;
        continue;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 1000 * RETRY_S[Math.min(Math.max(failures, 0), RETRY_S.length - 1)]));
  }
}

async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { name: "message", data: "" };
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) event.name = line.slice(7);
        else if (line.startsWith("data: ")) event.data += line.slice(6);
      }
      yield event;
    }
  }
}
