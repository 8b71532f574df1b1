// Numbers as people read them, and small helpers for building the page.

export function watts(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const [unit, scale] = size >= 1e6 ? ["MW", 1e6] : size >= 1e3 ? ["kW", 1e3] : ["W", 1];
  return `${number(value / scale, digits)} ${unit}`;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const whole = Math.max(1, Math.floor(Math.log10(Math.max(1, Math.abs(value)))) + 1);
  const places = Math.max(0, digits - whole);
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}

export function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

export function price(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB");
}

export function words(text) {
  return String(text).replaceAll("_", " ");
}

// Text only ever becomes text nodes: nothing that a device or a feed says can become markup.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, attribute, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(attribute);
  else if (node.getAttribute(attribute) !== String(value)) node.setAttribute(attribute, value);
}

// Keeps the node of each key from one update to the next, so that focus and clicks survive an update every second.
export function keyed(container, items, keyOf, create, update) {
  const known = container.known ?? (container.known = new Map());
  const wanted = new Set();
  let place = container.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let node = known.get(key);
    if (!node) {
      node = create(item);
      known.set(key, node);
    }
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else container.insertBefore(node, place);
  }
  for (const [key, node] of known) {
    if (!wanted.has(key)) {
      node.remove();
      known.delete(key);
    }
  }
}
