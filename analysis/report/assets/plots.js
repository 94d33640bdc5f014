// Plotly traces and layout for a part of the run, from the packed numbers and the colours of the page.
// Plotly interprets a few tags in texts, so untrusted texts are escaped.
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "soft", "line", "track", "surface", "blue", "pale", "orange", "green", "vermillion", "grey"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
};

const isNarrow = () => matchMedia("(max-width: 46rem)").matches;

const axis = (theme, title, more = {}) => ({
  title: { text: title, standoff: 10 },
  gridcolor: theme.line,
  linecolor: theme.line,
  zeroline: false,
  tickangle: 0,
  automargin: true,
  fixedrange: isNarrow(),
  ...more,
});

const shares = { tickformat: ".0%", rangemode: "tozero" };

const layoutOf = (theme, height, more, legend = {}) => ({
  height,
  font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: theme.soft },
  showlegend: true,
  paper_bgcolor: "rgba(0,0,0,0)",
  plot_bgcolor: "rgba(0,0,0,0)",
  margin: { l: 8, r: 10, t: 14, b: 8 },
  // Below the title of the axis, at any height.
  legend: { orientation: "h", x: 0, xanchor: "left", y: -58 / (height - 140), yanchor: "top", ...legend },
  modebar: { bgcolor: "rgba(0,0,0,0)", color: theme.grey, activecolor: theme.blue },
  hoverlabel: { bgcolor: theme.surface, bordercolor: theme.grey, font: { color: theme.ink } },
  // Touching a plot scrolls the page.
  dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
  ...more,
});

const line = (name, points, look, more = {}) => ({
  type: "scatter", mode: "lines", name, x: points.x, y: points.y, line: look, ...more,
});

// More steps than this look like a curve.
const MOST_STEPS = 60;

const oraclePlot = ({ run, part, theme }) => {
  const { oracle, null: shuffled, policies } = part;
  const [x, y, low, high] = oracle.point;
  const of = `%{x:.1%} of the ${run.measure}: %{y:.3f}`;
  const looks = { unified: ["orange", "dash"], random: ["green", "dot"], "early-exit": ["vermillion", "dashdot"] };
  const error = low === null ? undefined : { type: "data", symmetric: false, array: [Math.max(0, high - x)], arrayminus: [Math.max(0, x - low)], thickness: 1.6, width: 5, color: theme.ink };
  const traces = [
    ...policies.map((policy) => {
      const [colour, dash] = looks[policy.family];
      return line(policy.name, policy, { color: theme[colour], width: 1.8, dash }, { hovertemplate: of });
    }),
    ...(shuffled ? [
      line("oracle, shuffled references", shuffled, { color: theme.grey, width: 1.4 }, { hovertemplate: of }),
      { type: "scatter", mode: "markers", name: "oracle, shuffled references", showlegend: false, x: [shuffled.point[0]], y: [shuffled.point[1]], marker: { size: 10, color: theme.surface, line: { color: theme.grey, width: 2 } }, hovertemplate: of },
    ] : []),
    line("full model", { x: [0, 1], y: [oracle.full, oracle.full] }, { color: theme.ink, width: 1.3, dash: "longdash" }, { hovertemplate: `full model: %{y:.3f}` }),
    line("oracle", oracle, { color: theme.blue, width: 2.6, shape: oracle.x.length > MOST_STEPS ? "linear" : "hv" }, { hovertemplate: of }),
    { type: "scatter", mode: "markers", name: "equal quality", x: [x], y: [y], error_x: error, marker: { size: 11, color: theme.blue, line: { color: theme.surface, width: 2 } }, hovertemplate: `equal quality: ${of}` },
  ];
  const layout = {
    xaxis: axis(theme, `mean fraction of ${run.measure}`, { ...shares, range: [-0.02, 1.02] }),
    yaxis: axis(theme, `mean ${run.metric}`),
    hovermode: "closest",
  };
  return { traces, layout, legend: { traceorder: "reversed" } };
};

// Whether a sequence tells nothing: every allocation qualifies.
const untold = (rows, n) => Boolean(rows.zero[n] || rows.vacuous[n]);

const KINDS = [
  { name: "proven minimal", colour: "blue", pattern: "", symbol: "circle", of: (rows, n) => rows.proven[n] && !untold(rows, n) },
  { name: "best found", colour: "pale", pattern: "", symbol: "circle", of: (rows, n) => !rows.proven[n] && !untold(rows, n) },
  { name: "tells nothing", colour: "grey", pattern: "/", symbol: "x-thin", of: untold },
];

const budgetsPlot = ({ run, rows, chosen, theme }) => {
  const counting = counts(run.measure);
  const bin = (n) => (counting ? rows.upper[n] : Math.floor(rows.fraction[n] / 0.05 + 1e-9) * 0.05 + 0.025);
  const traces = KINDS.map((kind) => {
    const tally = new Map();
    for (const n of chosen) if (kind.of(rows, n)) tally.set(bin(n), (tally.get(bin(n)) ?? 0) + 1);
    const x = [...tally.keys()].sort((a, b) => a - b);
    const here = counting ? `%{x} ${run.measure}` : "about %{x:.0%}";
    return {
      type: "bar", name: kind.name, x, y: x.map((value) => tally.get(value)),
      marker: { color: theme[kind.colour], pattern: { shape: kind.pattern, fillmode: "overlay", fgcolor: theme.surface, solidity: 0.25 } },
      hovertemplate: `${here}: %{y} sequences, ${kind.name}<extra></extra>`,
    };
  }).filter((trace) => trace.x.length);
  const most = Math.max(...traces.flatMap((trace) => trace.y));
  const layout = {
    barmode: "stack",
    bargap: 0.12,
    xaxis: axis(theme, counting ? `minimal budget (${run.measure} of ${run.layers})` : `minimal fraction of ${run.measure}`, counting ? { range: [-0.7, run.layers + 0.7] } : { ...shares, range: [-0.02, 1.02] }),
    yaxis: axis(theme, "sequences", { rangemode: "tozero", tickformat: ",d", dtick: most > 4 ? undefined : 1 }),
  };
  return { traces, layout };
};

// Up to this number each sequence is a point of its own.
const MOST_POINTS = 1500;

// Offsets of points on the line of their row: a point alone lies on it, points at one place are stacked on both sides.
const STACKED = 0.012;
const MOST_OFFSET = 0.32;

const stacked = (values) => {
  const counts = new Map();
  const slots = values.map((value) => {
    const place = Math.round(value / STACKED);
    const before = counts.get(place) ?? 0;
    counts.set(place, before + 1);
    return before;
  });
  const step = Math.min(0.11, MOST_OFFSET / Math.max(1, Math.ceil((Math.max(0, ...counts.values()) - 1) / 2)));
  return slots.map((slot) => (slot % 2 ? 1 : -1) * Math.ceil(slot / 2) * step || 0);
};

// Ticks of a logarithmic axis of counts: 1, 2, 5, 10, ..., or only powers of ten where there is little room.
const logTicks = (most) => {
  const ticks = [];
  const steps = isNarrow() || most > 2000 ? [1] : [1, 2, 5];
  for (let power = 1; power <= most; power *= 10) ticks.push(...steps.map((step) => step * power).filter((tick) => tick <= most * 1.05));
  return { tickmode: "array", tickvals: ticks, ticktext: ticks.map((tick) => tick.toLocaleString("en")), range: [-0.03, Math.log10(Math.max(2, most)) + 0.03] };
};

const tasksPlot = ({ run, rows, chosen, parts, theme }) => {
  const names = [...new Set(chosen.map((n) => rows.part[n]))].sort((a, b) => b - a);
  const place = new Map(names.map((part, row) => [part, row]));
  // As in the headlines, those that tell nothing count in no mean.
  const telling = (part) => chosen.filter((n) => rows.part[n] === part && !untold(rows, n)).map((n) => rows.fraction[n]);
  const traces = [];
  if (chosen.length <= MOST_POINTS) {
    const offsets = new Map();
    for (const part of names) {
      const members = chosen.filter((n) => rows.part[n] === part);
      stacked(members.map((n) => rows.fraction[n])).forEach((offset, i) => offsets.set(members[i], offset));
    }
    for (const kind of KINDS) {
      const mine = chosen.filter((n) => kind.of(rows, n));
      if (!mine.length) continue;
      traces.push({
        type: "scatter", mode: "markers", name: kind.name, customdata: mine,
        x: mine.map((n) => rows.fraction[n]), y: mine.map((n) => place.get(rows.part[n]) + offsets.get(n)),
        text: mine.map((n) => `${plain(cut(rows.id[n], 60))}<br>${costText(rows.upper[n], run.measure)} ${run.measure}, at least ${costText(rows.lower[n], run.measure)}`),
        marker: { size: 9, opacity: 0.9, symbol: kind.symbol, color: theme[kind.colour], line: { color: kind.symbol === "circle" ? theme.blue : theme.grey, width: kind.symbol === "circle" ? 1 : 2 } },
        hovertemplate: "%{text}<br>%{x:.1%}<extra></extra>",
      });
    }
  } else {
    names.forEach((part, row) => traces.push({
      type: "box", orientation: "h", y0: row, x: telling(part),
      boxpoints: false, fillcolor: theme.pale, line: { color: theme.blue, width: 1.4 }, showlegend: false, hoverinfo: "x", name: "",
    }));
  }
  const means = names.map(telling).flatMap((values, row) => values.length ? [[values.reduce((sum, value) => sum + value, 0) / values.length, row]] : []);
  traces.push({
    type: "scatter", mode: "markers", name: "mean", x: means.map(([mean]) => mean), y: means.map(([, row]) => row),
    marker: { symbol: "line-ns", size: 20, line: { color: theme.ink, width: 2.5 } }, hovertemplate: "mean %{x:.1%}<extra></extra>",
  });
  const longest = isNarrow() ? 14 : 28;
  const layout = {
    xaxis: axis(theme, `minimal fraction of ${run.measure}`, { ...shares, range: [-0.03, 1.03] }),
    yaxis: axis(theme, "", { tickvals: names.map((_, row) => row), ticktext: names.map((part) => plain(cut(parts[part].name || "all", longest))), range: [-0.6, names.length - 0.4], showgrid: false }),
    hovermode: "closest",
  };
  return { traces, layout, height: Math.max(340, 130 + 34 * names.length), open: true };
};

const usePlot = ({ run, part, parts, theme }) => {
  const shown = part.name ? [part, parts[0]] : [...parts.slice(1), parts[0]];
  const longest = isNarrow() ? 10 : 28;
  const labels = shown.map(({ name, use }) => `${plain(cut(name || "all tasks", longest))} (${use.n})`);
  const traces = [{
    type: "heatmap", z: shown.map(({ use }) => use.share), zmin: 0, zmax: 1, xgap: isNarrow() ? 0.5 : 2, ygap: 3, hoverongaps: false, showscale: !isNarrow(),
    y: shown.map((_, row) => row), text: shown.map(({ use }, row) => use.share.map(() => labels[row])),
    colorscale: [[0, theme.track], [1, theme.blue]],
    colorbar: { tickformat: ".0%", thickness: 10, outlinewidth: 0, len: 1, tickvals: [0, 0.5, 1], orientation: "v", x: 1.01 },
    hovertemplate: `%{text}<br>layer %{x}: %{z:.0%}<extra></extra>`,
  }];
  const layout = {
    xaxis: axis(theme, run.unit === "layer" ? "layer" : "sublayer (even: attention, odd: MLP)", { showgrid: false, dtick: Math.max(1, Math.round(run.layers / (isNarrow() ? 6 : 15))) }),
    yaxis: axis(theme, "", { tickvals: shown.map((_, row) => row), ticktext: labels, autorange: "reversed", showgrid: false }),
  };
  // Room for the buttons above the scale.
  layout.margin = { l: 8, r: 10, t: isNarrow() ? 14 : 40, b: 8 };
  return { traces, layout, height: (isNarrow() ? 110 : 136) + 32 * shown.length };
};

const luckPlot = ({ part, run, theme }) => {
  const { luck } = part;
  const x = luck.allocations;
  const traces = [];
  const add = (key, name, colour) => {
    const ends = [luck[`${key}_low`], luck[`${key}_high`]];
    if (ends[0].every((value) => value !== null)) {
      const band = { color: theme[colour], width: 0 };
      traces.push(line("", { x, y: ends[0] }, band, { hoverinfo: "skip", showlegend: false }));
      traces.push(line("", { x, y: ends[1] }, band, { hoverinfo: "skip", showlegend: false, fill: "tonexty", fillcolor: `${theme[colour]}26` }));
    }
    const of = `%{x} tries: %{y:.1%}<extra>${name}</extra>`;
    traces.push(line(name, { x, y: luck[key] }, { color: theme[colour], width: 2.4 }, { mode: "lines+markers", marker: { size: 5 }, hovertemplate: of }));
    const shuffled = luck[`null_${key}`];
    if (shuffled.every((value) => value !== null)) {
      traces.push(line(`${name}, shuffled`, { x, y: shuffled }, { color: theme[colour], width: 1.6, dash: "dot" }, { hovertemplate: of }));
    }
  };
  add("per_sequence", "per sequence", "blue");
  add("equal_quality", "oracle", "orange");
  const layout = {
    xaxis: axis(theme, "allocations tried per sequence", { type: "log", ...logTicks(x[x.length - 1]) }),
    yaxis: axis(theme, `mean fraction of ${run.measure}`, { ...shares, range: [0, 1.04] }),
    hovermode: "closest",
  };
  return { traces, layout };
};
