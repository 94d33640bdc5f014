// The page: content per part, and its colours.
const PAPER = 640; // pixels across a printed page

const chunks = new Map();

const outputsOf = async (run, n) => {
  const chunk = Math.floor(n / run.chunk);
  if (!chunks.has(chunk)) chunks.set(chunk, unpackData(`rows-${chunk}`));
  return (await chunks.get(chunk))[n % run.chunk];
};

const quoted = (title, ...texts) => make("div", {}, make("h3", {}, title), ...texts.map((text) => make("p", { class: "text quote" }, text)));

const step = (run, full, [cost, quality, layers, family, output, mark], agrees) => {
  const of = `${costText(cost, run.measure)} ${run.measure}`;
  const badges = [
    mark & 1 ? make("span", { class: "badge" }, "minimal budget") : null,
    mark & 2 ? make("span", { class: "badge second" }, "oracle's choice") : null,
    mark & 1 && agrees === 0 ? make("span", { class: "badge bad" }, "not verified") : null,
  ];
  const side = make("div", {}, make("strong", {}, of), ` ${run.metric} ${score(quality)} `, make("small", {}, family), make("br"), ...badges, strip(layers, run.layers));
  const text = output === null ? make("p", { class: "text" }, full, make("small", {}, " (the same)")) : marked(full, output);
  return make("li", { class: "step" }, side, text);
};

// Detail of a row.
const opened = async (run, n) => {
  const { rows } = run;
  const [full, ...frontier] = await outputsOf(run, n);
  const references = rows.references[n];
  const tokens = rows.promptTokens ? ` (${rows.promptTokens[n]} tokens)` : "";
  const proof = rows.vacuous[n] ? `it tells nothing: ${rows.vacuous[n]}` : rows.zero[n] ? "it tells nothing: the full model scores zero here, any allocation will do" : rows.proven[n] ? `proven minimal (${rows.proof[n]})` : `at least ${costText(rows.lower[n], run.measure)} (${rows.proof[n]})`;
  return [
    make("div", { class: "sides" },
      quoted(`Prompt${tokens}`, rows.prompt[n]),
      quoted(references.length === 1 ? "Reference" : "References", ...references)),
    quoted(`Full model, ${run.metric} ${score(rows.full[n])}`, full),
    make("h3", {}, "Outputs along the frontier, where they differ from the full model's"),
    make("small", {}, `Minimal budget ${costText(rows.upper[n], run.measure)} ${run.measure}; ${proof}.`),
    ...(rows.statistical?.[n] ? [make("br"), make("small", { class: "statistical" }, `Statistical: ${rows.statistical[n]}.`)] : []),
    make("ol", { class: "steps" }, ...frontier.map((point) => step(run, full, point, rows.agrees[n]))),
  ];
};

const plotList = (run) => [
  { key: "oracle", title: "Quality of the oracle", words: (part) => part.words.oracle, of: oraclePlot },
  { key: "luck", title: "Effect of more tries", words: (part) => part.words.luck, of: luckPlot },
  { key: "budgets", title: "Distribution of minimal budgets", words: (part) => part.words.budgets, of: budgetsPlot },
  { key: "tasks", title: "Minimal budget by task", words: (part) => part.words.tasks, of: tasksPlot },
  { key: "use", title: "Layers used", words: (part) => part.words.use, of: usePlot, wide: true },
  ...(run.extras.similarity ? [{ key: "similarity", title: "Drift of the last hidden state", words: () => "Skipping layers evenly against leaving early, over all sequences, on the full model's own output.", of: similarityPlot }] : []),
  ...(run.extras.controllers ? [{ key: "controllers", title: "Headroom captured by practical controllers", broad: !run.extras.similarity, words: () => "Each point is a controller at one setting, without access to the references; points and curves are over all compared sequences, whatever task is chosen.", of: controllersPlot }] : []),
];

const numbersOf = (traces) => {
  const text = (value) => (typeof value === "number" ? String(Number(value.toPrecision(5))) : "");
  const rows = traces.filter((trace) => trace.name && trace.y && trace.x).flatMap((trace) => Array.from(trace.x, (x, i) => [trace.name, text(x), text(trace.y[i])]));
  return numbers("The numbers of the plot", ["Series", "x", "y"], rows);
};

const gallery = (run, showRow) => {
  const plots = plotList(run).map((plot) => {
    const canvas = make("div", { class: "canvas", role: "group", "aria-label": plot.title });
    const words = make("p", {});
    const details = make("details", {}, make("summary", {}, "Numbers"), make("div", { tabindex: 0 }));
    find("plots").append(make("article", { class: `plot${plot.wide || plot.broad ? " wide" : ""}`, id: `plot-${plot.key}` }, make("h3", {}, plot.title), words, canvas, plot.wide ? null : details));
    const shown = { ...plot, canvas, words, traces: [] };
    details.addEventListener("toggle", () => details.open && details.lastChild.replaceChildren(numbersOf(shown.traces)));
    return Object.assign(shown, { details, say: plot.words });
  });
  if (run.extras.throughput) find("plots").append(throughputPanel(run));
  if (run.extras.controllers) find("plots").append(controllersPanel(run));
  if (run.extras.static) find("plots").append(staticPanel(run));
  if (run.extras.drafts) find("plots").append(draftsPanel(run));
  if (run.extras.claims) find("plots").append(claimsPanel(run));
  let turn = 0;
  return async (part, chosen, width) => {
    const theme = colours();
    const mine = ++turn;
    for (const plot of plots) {
      const { traces, layout, legend, height, open } = plot.of({ run, rows: run.rows, parts: run.parts, part, chosen, theme });
      plot.words.textContent = plot.say(part);
      plot.traces = traces;
      plot.details.open = false;
      const fresh = !plot.canvas.data;
      const drawn = Plotly.react(plot.canvas, traces, layoutOf(theme, Math.min(height ?? 400, width ? 290 : Infinity), { ...layout, width }, legend), {
        responsive: true, displayModeBar: isNarrow() ? false : "hover", displaylogo: false, plotlyServerURL: "",
        modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
      });
      // Printing does not wait: only what is drawn already appears on paper.
      if (width) continue;
      await drawn;
      if (fresh && open) plot.canvas.on("plotly_click", ({ points }) => Number.isInteger(points[0].customdata) && showRow(points[0].customdata));
      await nextFrame();
      if (turn !== mine) return;
    }
    document.documentElement.dataset.drawn = part.name || "all";
  };
};

const setTheme = (dark) => {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const button = find("theme");
  if (button) {
    button.setAttribute("aria-pressed", String(dark));
    button.textContent = dark ? "Light" : "Dark";
  }
};

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
setTheme(prefersDark.matches);

const start = async () => {
  setTheme(prefersDark.matches);
  const run = await unpackData("index");
  const table = new SequenceTable(run);
  let drawAll = null;
  let at = 0;
  const chosenOf = (part) => [...run.rows.id.keys()].filter((n) => part === 0 || run.rows.part[n] === part);
  const redraw = (width) => drawAll?.(run.parts[at], chosenOf(at), width);
  const choose = (part) => {
    at = part;
    for (const box of document.querySelectorAll(".of-part")) box.hidden = Number(box.dataset.part) !== part;
    for (const button of document.querySelectorAll(".choose")) button.setAttribute("aria-pressed", String(Number(button.dataset.part) === part));
    if (find("task")) find("task").value = String(part);
    find("depth").replaceChildren(depth(run.parts[part].use.share));
    table.choose(chosenOf(part));
    redraw();
  };
  find("task")?.addEventListener("change", ({ target }) => choose(Number(target.value)));
  for (const button of document.querySelectorAll(".choose")) {
    button.addEventListener("click", () => choose(button.getAttribute("aria-pressed") === "true" ? 0 : Number(button.dataset.part)));
  }
  const paint = (dark) => {
    setTheme(dark);
    redraw();
  };
  const isDark = () => document.documentElement.dataset.theme === "dark";
  find("theme").addEventListener("click", () => paint(!isDark()));
  addEventListener("beforeprint", () => {
    const dark = isDark();
    addEventListener("afterprint", () => paint(dark), { once: true });
    setTheme(false);
    redraw(PAPER);
  });
  prefersDark.addEventListener("change", ({ matches }) => paint(matches));
  choose(0);
  performance.mark("table");
  await nextFrame();
  document.head.append(make("script", {}, await unpack("plotly")));
  drawAll = gallery(run, (n) => table.show(n));
  await redraw();
  performance.mark("pictures");
};

addEventListener("DOMContentLoaded", () =>
  start().catch((error) => {
    find("trouble").textContent = `This page needs a browser of 2023 or later (${error.message}).`;
    find("trouble").hidden = false;
    throw error;
  }),
);
