// The table of loads: the daemon filters, sorts and cuts it; the page shows one page of it.

import { call } from "./session.js";
import { count, duration, el, keyed, put, show, watts, words } from "./format.js";

const PAGE = 25;
const EVERY_MS = 2000;

export class Loads {
  constructor(actions) {
    this.actions = actions;
    this.sort = "";
    this.offset = 0;
    this.status = null;
    this.asked = 0;
    this.form = document.getElementById("filter");
    this.body = document.querySelector("#loads tbody");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.turn(0));
    document.getElementById("previous").addEventListener("click", () => this.turn(this.offset - PAGE));
    document.getElementById("next").addEventListener("click", () => this.turn(this.offset + PAGE));
    for (const head of document.querySelectorAll("#loads th[data-sort]")) {
      const name = head.textContent;
      head.replaceChildren(el("button", { type: "button", onclick: () => this.sortBy(head.dataset.sort) }, name));
    }
    setInterval(() => { if (!document.hidden) this.refresh(); }, EVERY_MS);
  }

  turn(offset) {
    this.offset = Math.max(0, offset);
    this.refresh();
  }

  sortBy(field) {
    this.sort = this.sort === field ? `-${field}` : this.sort === `-${field}` ? "" : field;
    for (const head of document.querySelectorAll("#loads th[data-sort]")) {
      const mine = this.sort.replace("-", "") === head.dataset.sort;
      show(head, "aria-sort", mine ? (this.sort.startsWith("-") ? "descending" : "ascending") : null);
    }
    this.turn(0);
  }

  async refresh() {
    const asked = ++this.asked;
    const query = new URLSearchParams({ ...Object.fromEntries(new FormData(this.form)), sort: this.sort, limit: PAGE, offset: this.offset });
    try {
      const found = await call("GET", `loads?${query}`);
      // An older answer that comes late must not replace a newer one.
      if (asked === this.asked) this.show(found);
    } catch {
      // The stream's own state tells that the daemon is away; the last rows stay in view.
    }
  }

  show(found) {
    if (this.offset && this.offset >= found.matched) return void this.turn(0);
    keyed(this.body, found.rows, (row) => row.id, (row) => this.create(row), (node, row) => this.update(node, row));
    const last = this.offset + found.rows.length;
    put(document.getElementById("pages"), found.matched ? `${count(this.offset + 1)}–${count(last)} of ${count(found.matched)}${found.matched < found.total ? ` (${count(found.total)} in all)` : ""}` : "No load matches.");
    document.getElementById("previous").disabled = this.offset === 0;
    document.getElementById("next").disabled = last >= found.matched;
  }

  create(row) {
    return el("tr", {},
      el("td", { class: "id" }, el("i", { class: `key ${row.kind}` }), el("button", { type: "button", class: "link", onclick: () => this.actions.why(row.id), title: "Why does it stand there?" }, row.id)),
      el("td", { class: "circuit-name" }), el("td", {}, el("span", { class: "chip" })),
      el("td", { class: "number" }), el("td", { class: "number" }), el("td", { class: "cause" }), el("td", { class: "rule" }),
      el("td", { class: "act" }, el("button", { type: "button", class: "quiet" })));
  }

  update(node, row) {
    const [, circuit, state, power, setpoint, cause, rule, act] = node.children;
    const name = row.fault ? "fault" : row.state ?? "unknown";
    put(circuit, row.circuit);
    put(state.firstChild, name);
    show(state.firstChild, "class", `chip state-${name}`);
    put(power, watts(row.watts));
    put(setpoint, row.setpoint_w === null ? "–" : watts(row.setpoint_w));
    put(cause, row.cause ? words(row.cause) : "");
    put(rule, row.fault ? `${row.fault}${row.age_s === null ? "" : `, read ${duration(row.age_s)} ago`}` : row.withheld ?? row.rule ?? "");
    const hold = this.status?.holds.find((item) => item.target === row.id);
    const button = act.firstChild;
    put(button, hold ? "Release" : "Hold");
    show(node, "data-held", hold ? hold.kind : null);
    show(button, "aria-label", hold ? `Release ${row.id}` : `Hold ${row.id}`);
    button.onclick = () => (hold ? this.actions.release(hold.id, hold.owner) : this.actions.hold(row.id));
  }
}
