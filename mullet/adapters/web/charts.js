// The two charts: stacked power against the limit, and the price below it, on one time axis.

import { call } from "./session.js";
import { el, price, put, watts } from "./format.js";

const NAMES = ["miner_w", "gpu_w", "unmanaged_w", "meter_w", "limit_w", "sum_w", "price_per_mwh"];
const REFETCH_S = 60;
const LIVE_WINDOW_S = 3600;
const LEAST_SPAN_S = 60;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const POWER = [
  { label: "GPUs", name: "gpu", field: "gpu_w" },
  { label: "Miners", name: "miner", field: "miner_w" },
  { label: "Unmanaged", name: "unmanaged", field: "unmanaged_w" },
  { label: "Limit", name: "limit", field: "limit_w" },
  { label: "Meter", name: "meter", field: "meter_w" },
];

export class Charts {
  constructor(power, priced, powerLegend, priceLegend) {
    this.hosts = [power, priced];
    this.rows = Object.fromEntries(["at", ...NAMES].map((name) => [name, []]));
    this.windowS = 300;
    this.fetchedAt = 0;
    this.currency = "";
    this.cursor = null;
    this.legends = [
      this.legend(powerLegend, POWER),
      this.legend(priceLegend, [{ label: "Price", name: "price", field: "price_per_mwh" }]),
    ];
    this.plots = [];
    this.build();
    new ResizeObserver(() => this.resize()).observe(power);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.build());
  }

  legend(list, series) {
    return series.map(({ label, name, field }) => {
      const value = el("b");
      list.append(el("li", {}, el("i", { class: `key ${name}` }), `${label} `, value));
      return { value, field };
    });
  }

  build() {
    for (const plot of this.plots) plot.destroy();
    const text = colour("muted"), grid = colour("line"), font = "11px system-ui, sans-serif";
    const axis = { stroke: text, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const time = { ...axis, size: 26, space: 90, values: (_, splits) => splits.map((at) => this.label(at)) };
    const cursor = {
      drag: { x: false, y: false }, sync: { key: "mullet", scales: ["x", null] }, y: false,
      points: { show: false },
    };
    const base = {
      cursor, legend: { show: false }, padding: [8, 24, 0, 0],
      hooks: { setCursor: [(plot) => { this.cursor = plot.cursor.idx ?? null; this.readout(); }] },
    };
    const scales = { x: { time: true, range: () => this.span() } };
    const area = (name) => ({ stroke: colour(name), width: 1.5, fill: colour(`${name}-fill`), points: { show: false } });
    const stepped = uPlot.paths.stepped({ align: 1 });
    const powerOptions = {
      ...base, ...this.size(0),
      scales: { ...scales, y: { range: (_, low, high) => [0, Math.max(1, high ?? 1) * 1.08] } },
      axes: [{ ...time, values: () => [], size: 8 }, { ...axis, size: 62, space: 42, values: (_, splits) => this.units(splits) }],
      series: [
        {},
        area("gpu"),
        { ...area("miner"), fill: undefined },
        { ...area("unmanaged"), fill: undefined },
        { stroke: colour("limit"), width: 1.5, dash: [7, 5], paths: stepped, points: { show: false } },
        { stroke: colour("meter"), width: 1.25, points: { show: false } },
      ],
      bands: [
        { series: [2, 1], fill: colour("miner-fill") },
        { series: [3, 2], fill: colour("unmanaged-fill") },
      ],
    };
    const priceOptions = {
      ...base, ...this.size(1),
      scales: { ...scales, y: { range: (_, low, high) => [Math.min(0, low ?? 0) * 1.1, Math.max(10, high ?? 10) * 1.15] } },
      axes: [time, { ...axis, size: 62, space: 30, values: (_, splits) => splits.map((v) => v.toLocaleString("en")) }],
      series: [{}, { ...area("price"), paths: stepped }],
    };
    this.plots = [
      new uPlot(powerOptions, this.stacked(), this.hosts[0]),
      new uPlot(priceOptions, [this.rows.at, this.rows.price_per_mwh], this.hosts[1]),
    ];
  }

  label(at) {
    const date = new Date(at * 1000);
    if (this.windowS > 86400) return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    const whole = this.windowS <= 300 ? { second: "2-digit" } : {};
    return date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...whole });
  }

  units(splits) {
    const most = Math.max(...splits.map(Math.abs));
    const [unit, scale] = most >= 2e6 ? ["MW", 1e6] : most >= 2e3 ? ["kW", 1e3] : ["W", 1];
    return splits.map((value) => (value === 0 ? "0" : `${Number((value / scale).toPrecision(3))} ${unit}`));
  }

  size(which) {
    return { width: Math.max(200, this.hosts[which].clientWidth), height: which === 0 ? 280 : 130 };
  }

  resize() {
    this.plots.forEach((plot, which) => {
      const size = this.size(which);
      if (size.width !== plot.width) plot.setSize(size);
    });
  }

  span() {
    const newest = this.rows.at.at(-1) ?? Date.now() / 1000;
    const first = this.rows.at[0] ?? newest;
    // A young daemon's minute fills the chart instead of its right edge.
    return [Math.max(newest - this.windowS, Math.min(first, newest - LEAST_SPAN_S)), newest];
  }

  stacked() {
    const { at, gpu_w, miner_w, unmanaged_w, limit_w, meter_w } = this.rows;
    const mined = at.map((_, i) => (miner_w[i] === null && gpu_w[i] === null ? null : (gpu_w[i] ?? 0) + (miner_w[i] ?? 0)));
    const whole = mined.map((sum, i) => (sum === null || unmanaged_w[i] === null ? sum : sum + unmanaged_w[i]));
    return [at, gpu_w, mined, whole, limit_w, meter_w];
  }

  draw() {
    this.plots[0].setData(this.stacked());
    this.plots[1].setData([this.rows.at, this.rows.price_per_mwh]);
    for (const host of this.hosts) host.dataset.points = this.rows.at.length;
    this.readout();
  }

  readout() {
    const index = this.cursor ?? this.rows.at.length - 1;
    for (const legend of this.legends) {
      for (const { value, field } of legend) {
        const known = this.rows[field][index];
        put(value, field === "price_per_mwh" ? `${price(known)} ${this.currency}/MWh` : watts(known));
      }
    }
  }

  async setWindow(seconds) {
    this.windowS = seconds;
    await this.refetch();
  }

  async refetch() {
    const newest = this.rows.at.at(-1) ?? Date.now() / 1000;
    this.fetchedAt = newest;
    const found = await call("GET", `history?start=${newest - this.windowS}&end=${newest + 3600}&points=900`);
    for (const name of ["at", ...NAMES]) this.rows[name] = found[name];
    this.draw();
  }

  add(status, row) {
    this.currency = status.currency;
    const { at } = this.rows;
    if (at.length && row.at <= at.at(-1)) return;
    if (this.windowS > LIVE_WINDOW_S && row.at - this.fetchedAt > REFETCH_S) {
      this.refetch().catch(() => null);
      return;
    }
    at.push(row.at);
    for (const name of NAMES) this.rows[name].push(row[name] ?? null);
    while (at.length && at[0] < row.at - this.windowS - 5) {
      at.shift();
      for (const name of NAMES) this.rows[name].shift();
    }
    this.draw();
  }
}

export function rowOf(status) {
  const root = Object.values(status.circuits).find((circuit) => circuit.parent === null) ?? {};
  const { miner, gpu, meter } = status.power_w;
  return {
    at: status.at, miner_w: miner, gpu_w: gpu, meter_w: meter ?? null,
    unmanaged_w: meter === null || meter === undefined ? null : Math.max(0, meter - miner - gpu),
    limit_w: root.limit_w ?? null, sum_w: root.sum_w ?? null, price_per_mwh: status.price_per_mwh ?? null,
  };
}
