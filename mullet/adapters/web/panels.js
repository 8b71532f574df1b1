// Everything on the page that shows the latest status, but for charts and the table of loads.

import { clock, count, duration, el, keyed, price, put, show, watts, words } from "./format.js";

const byId = (id) => document.getElementById(id);

export function showFigures(status) {
  const services = Object.values(status.services);
  const waiting = services.reduce((sum, service) => sum + (service.waiting ?? 0), 0);
  const root = Object.values(status.circuits).find((circuit) => circuit.parent === null);
  const used = root && root.limit_w > 0 ? root.sum_w / root.limit_w : 0;
  const { power_w: power, plan } = status;
  const figures = [
    { name: "Grid draw", value: watts(power.meter ?? power.total), note: root ? `of ${watts(root.limit_w)} ${power.meter === null ? "(sum of loads)" : "metered"}` : "", level: null },
    { name: "Headroom", value: watts(status.headroom_w), note: `${Math.round(100 * used)} % of the limit promised`, level: status.headroom_w < 0 ? "bad" : used > 0.97 ? "warn" : null },
    { name: "AI inference", value: watts(power.gpu), note: `${count(status.loads.gpus)} GPUs · ${count(waiting)} waiting`, level: null, swatch: "gpu" },
    { name: "Mining", value: watts(power.miner), note: `${count(status.loads.miners)} miners`, level: null, swatch: "miner" },
    { name: "Energy price", value: price(status.price_per_mwh), note: `${status.currency}/MWh${status.hashprice_per_ph_day === null ? "" : ` · hashprice ${price(status.hashprice_per_ph_day)}`}`, level: status.price_per_mwh === null ? "warn" : null, swatch: "price" },
    { name: "Plan", value: plan.rung === null ? "none" : words(plan.rung), note: `${status.pending} pending${plan.valid_until === null ? "" : ` · valid ${duration(plan.valid_until - status.at)}`}`, level: plan.rung === null ? "warn" : null, text: true },
  ];
  keyed(byId("figures"), figures, (item) => item.name,
    (item) => el("div", { class: "figure" }, el("h3", {}, item.swatch ? el("i", { class: `key ${item.swatch}` }) : null, item.name), el("p", { class: item.text ? "value text" : "value" }), el("p", { class: "note" })),
    (node, item) => {
      put(node.children[1], item.value);
      put(node.children[2], item.note);
      show(node, "data-level", item.level);
    });
}

export function showAlarms(status) {
  const alarms = [...status.alarms];
  const silent = Object.keys(status.faults).length;
  if (silent && !alarms.some((alarm) => alarm.key === "loads/unread")) {
    const names = Object.keys(status.faults);
    alarms.push({ key: "faults", text: `${count(silent)} of ${count(status.loads.miners + status.loads.gpus)} loads cannot be read: ${names.slice(0, 3).join(", ")}${silent > 3 ? ", …" : ""}`, since: null, minor: true });
  }
  byId("alarms").hidden = alarms.length === 0;
  keyed(byId("alarms"), alarms, (item) => item.key,
    (item) => el("p", { class: item.minor ? "alarm minor" : "alarm" }, el("b", {}, item.key), el("span", {}), el("time", { class: "muted" })),
    (node, item) => {
      put(node.children[1], item.text);
      put(node.children[2], item.since === null ? "" : `${duration(status.at - item.since)}`);
    });
}

function inTree(circuits) {
  const children = new Map();
  for (const [id, circuit] of Object.entries(circuits)) {
    const key = circuit.parent ?? "";
    children.set(key, [...(children.get(key) ?? []), id]);
  }
  const order = [];
  const walk = (key, depth) => {
    for (const id of children.get(key) ?? []) {
      order.push({ id, depth, ...circuits[id] });
      walk(id, depth + 1);
    }
  };
  walk("", 0);
  return order;
}

export function showCircuits(status, actions) {
  keyed(byId("circuits"), inTree(status.circuits), (item) => item.id,
    (item) => el("div", { class: "circuit" },
      el("div", { class: "line" },
        el("button", { type: "button", class: "link name", onclick: () => actions.why(item.id) }, item.id),
        el("span", { class: "chips" }), el("span", { class: "spacer" }), el("span", { class: "reading" })),
      el("div", { class: "bar", role: "meter", "aria-valuemin": 0 },
        el("i", { class: "worst" }), el("i", { class: "measured" }), el("i", { class: "mark" }))),
    (node, item) => {
      node.style.setProperty("--depth", item.depth);
      const [line, bar] = node.children;
      const scale = Math.max(item.limit_w, item.sum_w, item.measured_w ?? 0, 1);
      const share = (value) => `${(100 * (value ?? 0)) / scale}%`;
      bar.children[0].style.width = share(item.sum_w);
      bar.children[1].style.width = share(item.measured_w);
      bar.children[2].style.left = share(item.limit_w);
      const over = item.sum_w > item.limit_w + 0.5 || (item.measured_w ?? 0) > item.limit_w;
      show(node, "data-level", over ? "bad" : item.sum_w > 0.97 * item.limit_w ? "warn" : null);
      show(bar, "aria-valuemax", Math.round(item.limit_w));
      show(bar, "aria-valuenow", Math.round(item.measured_w ?? item.sum_w));
      show(bar, "aria-label", `${item.id}: worst sum ${watts(item.sum_w)} of ${watts(item.limit_w)}`);
      put(line.children[3], `${item.measured_w === null ? "" : `${watts(item.measured_w)} · `}${watts(item.sum_w)} of ${watts(item.limit_w)}`);
      const chips = [];
      if (over) chips.push(["bad", "over the limit"]);
      if (item.cause) chips.push(["note", words(item.cause)]);
      if (item.meter === "bad") chips.push(["bad", item.meter_detail || "meter bad"]);
      else if (item.meter_age_s !== null && item.meter_age_s > 5) chips.push(["warn", `meter ${duration(item.meter_age_s)} old`]);
      if (!item.increases) chips.push(["warn", item.why_not || "no increases"]);
      keyed(line.children[1], chips, (chip) => chip.join(), (chip) => el("span", { class: `chip ${chip[0]}` }, chip[1]), () => null);
    });
}

export function showServices(status) {
  const services = Object.entries(status.services).map(([id, service]) => ({ id, ...service }));
  const box = byId("services");
  keyed(box, services, (item) => item.id,
    (item) => el("div", { class: "service" },
      el("div", { class: "line" }, el("b", {}, item.id), el("span", { class: "spacer" }), el("span", { class: "reading" })),
      el("div", { class: "bar", role: "meter", "aria-valuemin": 0 }, el("i", { class: "worst" }), el("i", { class: "measured gpu" })),
      el("dl", { class: "facts" }, ...["Waiting", "Running", "Tokens/s"].map((name) => el("div", {}, el("dt", {}, name), el("dd", {}))))),
    (node, item) => {
      const [line, bar, facts] = node.children;
      const need = item.need_w ?? 0, scale = Math.max(item.limit_w, need, 1);
      bar.children[0].style.width = `${(100 * item.limit_w) / scale}%`;
      bar.children[1].style.width = `${(100 * Math.min(need, scale)) / scale}%`;
      show(bar, "aria-valuemax", Math.round(scale));
      show(bar, "aria-valuenow", Math.round(need));
      show(bar, "aria-label", `${item.id}: needs ${watts(item.need_w)}, capped at ${watts(item.limit_w)}`);
      show(node, "data-level", need > item.limit_w + 1 ? "warn" : null);
      put(line.children[2], `need ${watts(item.need_w)} · cap ${watts(item.limit_w)}`);
      [item.waiting, item.running, item.tokens_per_s].forEach((value, i) => put(facts.children[i].lastChild, count(value)));
    });
  if (!services.length) put(box, "No inference service is configured.");
}

export function showStanding(status, actions) {
  const holds = status.holds.map((hold) => ({ ...hold, text: `${hold.target} held ${hold.kind}`, note: `${hold.owner}${hold.reason ? `: ${hold.reason}` : ""}` }));
  const ceilings = status.curtailments.map((item) => {
    const when = item.start > status.at ? `in ${duration(item.start - status.at)}` : item.end - status.at > 3e8 ? "until released" : `${duration(item.end - status.at)} left`;
    return { ...item, text: `${item.circuit} at most ${watts(item.limit_w)}`, note: `${words(item.cause)} · ${when}`, order: item.id.startsWith("shed-") };
  });
  const items = [...holds, ...ceilings];
  keyed(byId("standing"), items.length ? items : [{ id: "", none: true }], (item) => item.id,
    (item) => (item.none ? el("li", { class: "muted" }, "None stands.") : el("li", {}, el("span", { class: "what" }, el("b", {}), el("span", { class: "muted" })),
      item.owner || item.order ? el("button", { type: "button", class: "quiet", onclick: () => actions.release(item.id, item.owner) }, "Release") : null)),
    (node, item) => {
      if (item.none) return;
      put(node.firstChild.children[0], item.text);
      put(node.firstChild.children[1], item.note);
    });
}

export function showRecent(status) {
  const items = (status.recent ?? []).slice(0, 40).map((item, i, all) => ({ ...item, key: `${item.at}/${item.text}/${all.length - i > 0 ? all.slice(i + 1).filter((o) => o.at === item.at && o.text === item.text).length : 0}` }));
  keyed(byId("recent"), items.length ? items : [{ key: "", none: true }], (item) => item.key,
    (item) => (item.none ? el("li", { class: "muted" }, "Nothing was decided yet.") : el("li", { "data-kind": item.kind }, el("time", {}, clock(item.at)), el("span", { class: "chip note" }, words(item.kind)), el("span", {}, item.text))),
    () => null);
}

export function showMode(status) {
  for (const button of document.querySelectorAll("#modes button")) show(button, "aria-pressed", button.dataset.mode === status.mode);
}
