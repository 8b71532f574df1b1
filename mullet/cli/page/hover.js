"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const charts = [...document.querySelectorAll("svg[data-chart]")];
  const { left, right, width, start, end, steps } = data;
  const hide = () => {
    tip.style.display = "none";
    for (const line of document.querySelectorAll(".cross")) line.style.opacity = 0;
  };
  const show = (event, chart) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const at = start + ((x - left) / (right - left)) * (end - start);
    const step = steps.find((one) => one.start <= at && at < one.end);
    if (!step) return hide();
    for (const line of document.querySelectorAll(".cross")) {
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      line.style.opacity = 0.5;
    }
    tip.textContent = step.text;
    tip.style.display = "block";
    const room = window.innerWidth - tip.offsetWidth - 12;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 16, room))}px`;
    tip.style.top = `${Math.max(8, Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 8))}px`;
  };
  for (const chart of charts) {
    chart.addEventListener("pointermove", (event) => show(event, chart));
    chart.addEventListener("pointerleave", hide);
  }
})();
