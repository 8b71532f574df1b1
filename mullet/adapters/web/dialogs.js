// Orders and questions of the operator: each opens one dialog, tells what it will do, and shows why it was refused.

import { call, session } from "./session.js";
import { clock, el, put, watts, words } from "./format.js";

const dialog = document.getElementById("dialog");
const toast = document.getElementById("toast");

export function tell(text) {
  put(toast, text);
  toast.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { toast.hidden = true; }, 5000);
}

function open(title, content, buttons) {
  dialog.replaceChildren(el("form", { method: "dialog" }, el("h2", { id: "dialog-title" }, title), ...content, el("div", { class: "buttons" }, ...buttons)));
  if (!dialog.open) dialog.showModal();
  return dialog.firstChild;
}

// Resolves with the form's values once `act` succeeded, or with null if the operator thought better of it.
function ask({ title, text, fields = [], action, danger = false, act }) {
  return new Promise((resolve) => {
    const problem = el("p", { class: "problem", role: "alert", hidden: true });
    const submit = el("button", { type: "submit", class: danger ? "primary danger" : "primary" }, action);
    const cancel = el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel");
    const form = open(title, [text ? el("p", { class: "muted" }, text) : null, ...fields, problem], [cancel, submit]);
    let result = null;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      submit.disabled = true;
      try {
        const values = Object.fromEntries(new FormData(form));
        await act(values);
        result = values;
        dialog.close();
      } catch (error) {
        problem.hidden = false;
        put(problem, error.message);
      } finally {
        submit.disabled = false;
      }
    });
    dialog.addEventListener("close", () => resolve(result), { once: true });
  });
}

function field(label, name, attributes = {}) {
  return el("label", { class: "field" }, el("span", {}, label), el("input", { name, ...attributes }));
}

export function signIn(reason) {
  return ask({
    title: "Sign in",
    text: reason ?? "Orders need the facility's token. It stays in this tab and is forgotten with it.",
    fields: [
      field("Your name", "owner", { value: session.owner, required: true, maxlength: 64, autocomplete: "name" }),
      field(session.token ? "Token (leave empty to keep it)" : "Token", "token", { type: "password", required: !session.token, autocomplete: "off", spellcheck: "false" }),
    ],
    action: "Sign in",
    act: async ({ token, owner }) => {
      const before = session.token;
      session.keep(token.trim(), owner.trim());
      try {
        await call("GET", "loads?limit=1");
      } catch (error) {
        session.forget();
        if (before) session.keep(before, owner.trim());
        throw error;
      }
    },
  });
}

async function signedIn() {
  return (session.token && session.owner) || (await signIn()) !== null;
}

async function order(request, done) {
  if (!(await signedIn())) return;
  if ((await ask(request)) !== null) tell(done);
}

export function hold(target) {
  const kinds = el("fieldset", {}, el("legend", {}, "How"),
    el("label", {}, el("input", { type: "radio", name: "kind", value: "off", checked: true }), el("span", {}, "Off", el("small", {}, "nothing may energise it"))),
    el("label", {}, el("input", { type: "radio", name: "kind", value: "on" }), el("span", {}, "On", el("small", {}, "stays as it is, not curtailed for money"))));
  return order({
    title: `Hold ${target}`,
    text: "It stands until you release it, also across restarts. It is no lock-out: isolate equipment before work.",
    fields: [kinds, field("Reason", "reason", { maxlength: 500, placeholder: "e.g. fan replacement" })],
    action: "Place hold",
    act: ({ kind, reason }) => call("POST", "holds", { target, kind, reason, owner: session.owner }),
  }, `${target} is held.`);
}

export function release(id, owner) {
  return order({
    title: `Release ${id}?`,
    text: owner && owner !== session.owner ? `${owner} placed it, and only ${owner} may release it.` : "The plan takes over again.",
    action: "Release",
    act: () => call("DELETE", `holds/${encodeURIComponent(id)}?owner=${encodeURIComponent(session.owner)}`),
  }, `${id} is released.`);
}

const MODES = {
  observe: "mullet reads and records. It sends nothing to any load, not even to protect a limit.",
  advise: "mullet plans and records what it would do. It sends nothing to any load.",
  auto: "mullet acts on every load that the policy gives it.",
};

export function setMode(mode) {
  return order({
    title: `Switch to ${mode}?`, text: MODES[mode], action: `Switch to ${mode}`, danger: mode !== "auto",
    act: () => call("PUT", "mode", { mode, owner: session.owner }),
  }, `Mode ${mode} was ordered.`);
}

export function shed(status) {
  const names = Object.keys(status?.circuits ?? {});
  const circuit = el("label", { class: "field" }, el("span", {}, "Circuit"), el("select", { name: "circuit" }, ...names.map((name) => el("option", { value: name }, name))));
  return order({
    title: "Shed power now",
    text: "Miners go first, at once, and stay off until the order is released.",
    fields: [field("At least, in kW", "kw", { type: "number", min: "0.1", step: "any", required: true, inputmode: "decimal" }), circuit],
    action: "Shed", danger: true,
    act: ({ kw, circuit: where }) => call("POST", "shed", { watts: 1000 * Number(kw), circuit: where, owner: session.owner }),
  }, "The shed order stands.");
}

export async function why(target) {
  const close = el("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close");
  try {
    const answer = await call("GET", `why/${encodeURIComponent(target)}`);
    const { circuits, load: _, circuit: __, group, binds, ...own } = answer;
    const content = [facts(own), ...told("The plan, times in UTC", group?.words ?? binds?.map((item) => item.words))];
    for (const [name, circuit] of Object.entries(circuits ?? {})) content.push(el("h3", {}, `Circuit ${name}`), facts(circuit));
    open(`Why ${target}`, [el("div", { class: "why" }, ...content)], [close]);
  } catch (error) {
    open(`Why ${target}`, [el("p", { class: "problem" }, error.message)], [close]);
  }
}

function told(title, sentences) {
  if (!sentences?.length) return [];
  return [el("h3", {}, title), el("ul", {}, ...sentences.map((sentence) => el("li", {}, sentence)))];
}

function facts(values) {
  const list = el("dl", { class: "facts wide" });
  const add = (name, value) => {
    if (value === null || value === undefined || value === "") return;
    if (typeof value === "object") {
      for (const [key, inner] of Object.entries(value)) add(`${name} ${key}`, inner);
      return;
    }
    list.append(el("div", {}, el("dt", {}, words(name.replace(/_w$/, "").replace(/_per_mwh$/, " per MWh").replace(/_age_s$/, " age"))), el("dd", {}, shown(name, value))));
  };
  for (const [name, value] of Object.entries(values)) add(name.replace(/^inputs$/, "input"), value);
  return list;
}

function shown(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return /(cause|rung)$/.test(name) ? words(value) : String(value);
  if (/(_w|watts)$/.test(name)) return watts(value);
  if (/(_at|^at)$/.test(name)) return clock(value);
  return /_s$/.test(name) ? `${value.toFixed(1)} s` : String(Number(value.toFixed(3)));
}
