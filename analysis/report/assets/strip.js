// A strip of cells, one per layer.
const SVG = "http://www.w3.org/2000/svg";
const [CELL, GAP, TALL] = [10, 2, 14];

const draw = (tag, attributes, ...children) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

// How often each layer runs in an allocation written as ranges, such as `0-3,7,9-29`.
const runsOf = (ranges, layers) => {
  const runs = new Uint16Array(layers);
  for (const range of ranges ? ranges.split(",") : []) {
    const [first, last = first] = range.split("-").map(Number);
    for (let layer = first; layer <= last; layer++) runs[layer]++;
  }
  return runs;
};

const frame = (layers, label, ...children) =>
  draw(
    "svg",
    { viewBox: `0 0 ${layers * CELL - GAP} ${TALL}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    draw("title", {}, label),
    ...children,
  );

const strip = (ranges, layers) => {
  const runs = runsOf(ranges, layers);
  const paths = { off: "", on: "", again: "" };
  runs.forEach((times, layer) => {
    paths[times === 0 ? "off" : times === 1 ? "on" : "again"] += `M${layer * CELL} 0h${CELL - GAP}v${TALL}h${GAP - CELL}z`;
  });
  const cells = Object.entries(paths).map(([kind, d]) => draw("path", { class: kind, d }));
  const picture = frame(layers, ranges ? `runs ${ranges.replaceAll(",", ", ")}` : "runs no layer", ...cells);
  picture.setAttribute("class", "layers");
  return picture;
};

// The share of allocations that run each layer, by shade.
const depth = (shares) => {
  const cells = shares.map((share, layer) => {
    const place = { x: layer * CELL, y: 0, width: CELL - GAP, height: TALL };
    const back = draw("rect", { ...place, style: "fill: var(--track)" });
    const shade = draw("rect", { ...place, style: `fill: var(--blue); opacity: ${share ?? 0}` });
    return draw("g", {}, draw("title", {}, `layer ${layer}: ${percent(share ?? 0)}`), back, shade);
  });
  return frame(shares.length, "How often each layer is used", ...cells);
};
