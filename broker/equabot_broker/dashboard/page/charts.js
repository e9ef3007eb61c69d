// Charts, as SVG. Each has its numbers in words too: in its label and its legend.

const WIDTH = 600;
const HEIGHT = 120;
const SLOTS = 120; // readings: ten minutes

function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function figure(title, top, plot, legend) {
  return h("figure", {},
    h("figcaption", {}, title, h("span", {}, top)),
    plot,
    h("p", { class: "ends" }, h("span", {}, "10 minutes ago"), h("span", {}, "now")),
    h("ul", { class: "legend" }, legend.map(([kind, text]) => h("li", {}, h("span", { class: `key b-${kind}` }), text))));
}

function canvas(label, ...children) {
  const grid = [0, HEIGHT / 2].map((y) => s("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
  return s("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    grid, children);
}

// series: [kind, name, values]; stacked, the newest at the right.
function bars(title, series, unit) {
  const length = series[0][2].length;
  const sums = Array.from({ length }, (_, i) => series.reduce((sum, [, , values]) => sum + values[i], 0));
  const top = ceiling(Math.max(...sums, 0));
  const slot = WIDTH / SLOTS;
  const shapes = [];
  for (let i = 0; i < length; i += 1) {
    let y = HEIGHT;
    for (const [kind, , values] of series) {
      const height = (values[i] / top) * HEIGHT;
      if (height > 0) shapes.push(s("rect", { class: `f-${kind}`, x: WIDTH - (length - i) * slot, y: y - height, width: slot * 0.8, height }));
      y -= height;
    }
  }
  const legend = series.map(([kind, name, values]) => [kind, `${name} ${values.reduce((a, b) => a + b, 0).toLocaleString("en")}`]);
  const label = `${title}, last 10 minutes: ${legend.map(([, text]) => text).join(", ")}`;
  return figure(title, `max ${top.toLocaleString("en")} ${unit}`, canvas(label, shapes), legend);
}

// series: [kind, name, values], where null is a gap.
function lines(title, series) {
  const top = ceiling(Math.max(0, ...series.flatMap(([, , values]) => values.filter((value) => value !== null))));
  const slot = WIDTH / SLOTS;
  const shapes = series.map(([kind, , values]) => {
    const points = values.flatMap((value, i) => value === null ? []
      : [`${WIDTH - (values.length - i - 0.5) * slot},${HEIGHT - (value / top) * HEIGHT}`]);
    if (points.length === 1) points.push(points[0].replace(/^[^,]+/, (x) => String(Number(x) + slot)));
    return s("polyline", { class: `s-${kind}`, points: points.join(" ") });
  });
  const legend = series.map(([kind, name, values]) => [kind, `${name} ${duration(values.findLast((value) => value !== null))}`]);
  const label = `${title}, latest: ${legend.map(([, text]) => text).join(", ")}`;
  return figure(title, `max ${duration(top)}`, canvas(label, shapes), legend);
}

// One bar of shares. parts: [kind, name, number].
function shares(name, parts) {
  const total = parts.reduce((sum, [, , number]) => sum + number, 0);
  const bar = h("div", { class: "stack", "aria-hidden": "true" }, parts.map(([kind, , number]) => {
    const part = h("i", { class: `b-${kind}` });
    part.style.flexGrow = String(number);
    return part;
  }));
  return h("div", { class: "share" },
    h("p", { class: "row" }, h("span", { class: "name" }, name), h("span", { class: "dim" }, total.toLocaleString("en"))),
    bar,
    h("ul", { class: "legend" }, parts.map(([kind, part, number]) =>
      h("li", {}, h("span", { class: `key b-${kind}` }), `${part} ${number.toLocaleString("en")}`))));
}
