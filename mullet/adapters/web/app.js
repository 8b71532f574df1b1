// The operator's page: follows the daemon's events and shows each; orders go through dialogs.

import { Charts, rowOf } from "./charts.js";
import { hold, release, setMode, shed, signIn, why } from "./dialogs.js";
import { duration, put, show } from "./format.js";
import { Loads } from "./loads.js";
import { showAlarms, showCircuits, showFigures, showMode, showRecent, showServices, showStanding } from "./panels.js";
import { follow, session } from "./session.js";

const STALE_S = 5;
const byId = (id) => document.getElementById(id);
const root = document.documentElement;

const theme = localStorage.getItem("mullet.theme");
if (theme) root.dataset.theme = theme;

const refreshed = (act) => async (...args) => {
  await act(...args);
  loads.refresh();
  showOperator();
};
const actions = { why, hold: refreshed(hold), release: refreshed(release) };
const charts = new Charts(byId("power"), byId("price"), byId("power-legend"), byId("price-legend"));
const loads = new Loads(actions);
let latest = null;
let heardAt = null;
let state = "waiting";

function onStatus(status) {
  latest = status;
  heardAt = performance.now();
  if (!status.power_w) return;
  loads.status = status;
  charts.add(status, rowOf(status));
  showMode(status);
  showFigures(status);
  showAlarms(status);
  showCircuits(status, actions);
  showServices(status);
  showStanding(status, actions);
  showRecent(status);
  showLive();
}

async function onState(next, error) {
  state = next;
  showLive();
  if (next === "live") {
    await charts.refetch().catch(() => null);
    loads.refresh();
  }
  if (next !== "locked") return false;
  return (await signIn(session.token ? error.message : "This page needs the facility's token, which mullet printed at its start.")) !== null;
}

function showLive() {
  const quietS = heardAt === null ? null : (performance.now() - heardAt) / 1000;
  const stale = state === "live" && quietS !== null && quietS > STALE_S;
  const shown = stale ? "stale" : state;
  const text = { waiting: "connecting", locked: "needs a token", lost: "not connected" }[state] ?? (heardAt === null ? "waiting for the first tick" : stale ? `no news for ${duration(quietS)}` : "live");
  show(byId("live"), "data-state", shown);
  put(byId("live-text"), text);
  show(root, "data-stale", shown === "live" || heardAt === null ? null : "");
}

function showOperator() {
  put(byId("operator"), session.token && session.owner ? session.owner : "Sign in");
}

put(byId("facility"), session.facility);
document.title = `${session.facility} · mullet`;
showOperator();
setInterval(showLive, 1000);
byId("operator").addEventListener("click", refreshed(() => signIn()));
byId("shed").addEventListener("click", refreshed(() => shed(latest)));
byId("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("mullet.theme", root.dataset.theme);
  charts.build();
});
for (const button of document.querySelectorAll("#modes button")) {
  button.addEventListener("click", refreshed(() => setMode(button.dataset.mode)));
}
for (const button of document.querySelectorAll("#windows button")) {
  const mark = () => document.querySelectorAll("#windows button").forEach((other) => show(other, "aria-pressed", other === button));
  if (Number(button.dataset.seconds) === charts.windowS) mark();
  button.addEventListener("click", () => {
    mark();
    charts.setWindow(Number(button.dataset.seconds)).catch(() => null);
  });
}
follow(onStatus, onState);
