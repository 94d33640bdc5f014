// Results of other commands, if any: two plots and four tables.
const similarityPlot = ({ run, theme }) => {
  const looks = { skipping: ["blue", "solid"], "early exit": ["vermillion", "dash"] };
  const traces = run.extras.similarity.map((curve) => {
    const [colour, dash] = looks[curve.name];
    return line(curve.name, { x: curve.x, y: curve.cosine }, { color: theme[colour], width: 2.4, dash }, {
      mode: "lines+markers", marker: { size: 6 }, customdata: curve.same,
      hovertemplate: `%{x:.0%} of the ${run.unit}s: cosine %{y:.3f}, same token %{customdata:.0%}<extra>${curve.name}</extra>`,
    });
  });
  const layout = {
    xaxis: axis(theme, `fraction of ${run.unit}s that run`, { ...shares, range: [-0.02, 1.02] }),
    yaxis: axis(theme, "cosine to the full model's last state"),
    hovermode: "closest",
  };
  return { traces, layout };
};

// A reference at the controllers' budgets, over the sequences that they were compared on.
const boundOf = (rows, key) => {
  const known = rows.filter((row) => row[key] !== null && row[key] !== undefined).sort((a, b) => a.executed_fraction - b.executed_fraction);
  return { x: known.map((row) => row.executed_fraction), y: known.map((row) => row[key]) };
};

const controllersPlot = ({ run, theme }) => {
  // The controllers that replay a reference are the curves themselves. A task chosen above filters neither.
  const rows = run.extras.controllers.filter((row) => row.controller !== "oracle" && row.controller !== "static");
  const names = [...new Set(rows.map((row) => row.controller))];
  const [palette, symbols] = [["orange", "green", "vermillion", "blue", "grey"], ["square", "diamond", "triangle-up", "circle", "x"]];
  const bounds = [["oracle at that budget", "oracle_quality", { color: theme.blue, width: 2.2 }], ["best static allocation", "static_quality", { color: theme.grey, width: 1.6, dash: "dash" }]];
  const traces = bounds.map(([name, key, look]) => line(name, boundOf(run.extras.controllers, key), look, { hovertemplate: `${name}: %{x:.1%}, %{y:.3f}<extra></extra>` }));
  names.forEach((name, i) => {
    const mine = rows.filter((row) => row.controller === name);
    traces.push({
      type: "scatter", mode: "markers", name: plain(cut(name, 40)), x: mine.map((row) => row.executed_fraction), y: mine.map((row) => row.quality),
      text: mine.map((row) => plain(cut(row.setting, 80))),
      marker: { size: 10, color: theme[palette[i % palette.length]], symbol: symbols[(i + Math.floor(i / palette.length)) % symbols.length], line: { color: theme.surface, width: 1 } },
      hovertemplate: "%{text}<br>%{x:.1%} of the layers, quality %{y:.3f}",
    });
  });
  const layout = {
    xaxis: axis(theme, `executed fraction of ${run.unit}s`, { ...shares, range: [-0.02, 1.02] }),
    yaxis: axis(theme, `mean ${run.metric}`),
    hovermode: "closest",
  };
  return { traces, layout };
};

// An interval in brackets, which never breaks between lines.
const between = (low, high) => ` (${low}\u00a0to\u00a0${high})`;

// Rows of a table that are shown at first.
const FIRST = 15;

// A phone shows the rows of a panel stacked, each value under its name; the roles keep it a table for screen readers.
const numbers = (caption, heads, rows, texts = []) => {
  const kind = (i) => (i && !texts.includes(heads[i]) ? "number" : null);
  const cell = (value, i) => make(i ? "td" : "th", { role: i ? "cell" : "rowheader", scope: i ? null : "row", class: kind(i), "data-name": heads[i] }, value);
  const head = (name, i) => make("th", { role: "columnheader", scope: "col", class: kind(i) }, name.replaceAll("-", "\u2011"));
  return make(
    "table",
    { role: "table", "aria-label": caption },
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads.map(head))),
    make("tbody", { role: "rowgroup" }, ...rows.map((cells) => make("tr", { role: "row" }, ...cells.map(cell)))),
  );
};

const panel = (title, words, table, wide = true) => {
  const node = make("div", { class: `panel plot${wide ? " wide" : ""}` }, make("h3", {}, title), make("p", {}, words), table);
  table.classList.add("numbers");
  const rows = [...table.tBodies[0].rows];
  const later = rows.slice(FIRST);
  if (later.length) {
    const all = make("button", { class: "all", type: "button" }, `Show all ${rows.length} rows`);
    for (const row of later) row.classList.add("later");
    all.addEventListener("click", () => {
      for (const row of later) row.classList.remove("later");
      all.remove();
      later[0].tabIndex = -1;
      later[0].focus();
    });
    node.append(all);
  }
  return node;
};

const throughputPanel = (run) => {
  const rows = run.extras.throughput;
  const batches = Object.keys(rows[0].speeds);
  const heads = ["Policy", run.measure, run.metric, ...batches.map((batch) => `batch ${batch}`)];
  const cells = rows.map((row) => [row.policy, percent(row.fraction), score(row.quality), ...batches.map((batch) => row.speeds[batch]?.toFixed(0) ?? "")]);
  const words = "The same layers for every sequence, or for SkipDecode at every position: measured quality and tokens per second. Zero-shot: unlike in the papers, the model is trained for none of them.";
  return panel("Speed of fixed policies", words, numbers("Tokens per second of fixed policies, by batch", heads, cells), Boolean(run.extras.controllers));
};

const controllersPanel = (run) => {
  const heads = ["Controller", "executed", run.metric, "static", "oracle", "captured (95 % interval)", "layers that run"];
  const part = (value, show) => (value === null || value === undefined ? "" : show(value));
  const interval = (row) => part(row.captured_low, (low) => between(percent(low), percent(row.captured_high)));
  const cells = run.extras.controllers.map((row) => [
    `${row.controller} ${row.setting}`.trim(), part(row.executed_fraction, percent), part(row.quality, score),
    part(row.static_quality, score), part(row.oracle_quality, score), part(row.captured, percent) + interval(row), row.layers ?? "",
  ]);
  const words = "Static: the best fixed layers at the same cost. Oracle: the best choice per sequence. Captured: share of the gap between the two. unified and skipdecode are zero-shot: their published numbers are of models trained for them.";
  return panel("Practical controllers in numbers", words, numbers("Practical controllers", heads, cells, ["layers that run"]));
};

const staticPanel = (run) => {
  const rows = run.extras.static;
  const interval = (row, name) => (row[`${name}_low`] === null ? "" : between(score(row[`${name}_low`]), score(row[`${name}_high`])));
  const heads = ["Budget", "Layers that run", "Nominal", "Measured", `${run.metric} (full ${score(rows[0].full_quality)})`, "KL, nats/token"];
  const cells = rows.map((row) => [
    `${costText(row.cost, run.measure)} ${run.measure}`,
    make("div", {}, strip(row.layers, run.layers), make("small", {}, row.layers)),
    `${(1 / row.fraction).toFixed(2)}x`,
    row.gain === null ? "" : `${row.gain.toFixed(2)}x, ${row.rate.toFixed(1)} tokens/s`,
    score(row.quality) + interval(row, "quality"),
    score(row.kl) + interval(row, "kl"),
  ]);
  const words = `One mask for all sequences, chosen on a training part; quality and divergence are of ${rows[0].heldOut} held-out sequences (95 % interval). Nominal and measured speed-up at batch 1.`;
  return panel("Which layers can be dropped", words, numbers("Static masks by budget", heads, cells, ["Layers that run"]));
};

const draftsPanel = (run) => {
  const { choices, bounds, length } = run.extras.drafts;
  const known = (value, show) => (value === null || value === undefined ? "" : show(value));
  const times = (value) => `${value.toFixed(2)}x`;
  const pays = (value) => (value <= 0 ? "never" : percent(value));
  const heads = ["Draft mask", "draft cost", "first token accepted", "accepted per round (95 % interval)", "expected", "measured", "output equal", "pays below", "pays below, flat"];
  const cells = choices.map((row) => [
    row.name, percent(row.draft_cost), percent(row.first),
    `${score(row.accepted)}${known(row.accepted_low, (low) => between(score(low), score(row.accepted_high)))}`,
    `${row.expected.toFixed(1)} tokens/s (${times(row.expected_speedup)})`,
    known(row.measured, (rate) => `${rate.toFixed(1)} tokens/s (${times(row.measured_speedup)})`),
    known(row.equal, (count) => `${count} of ${row.sequences}`), known(row.pays_below, pays), known(row.pays_below_flat, pays),
  ]);
  const proven = bounds.map((row) => [
    `proven: at most ${row.budget} layers`, "", percent(row.first), score(row.accepted), `at most ${times(row.speedup)}`, "", "", "", "",
  ]);
  const limit = bounds.length
    ? ` Proven rows are upper bounds for ${bounds[bounds.length - 1].sequences} sequences: all ${bounds[bounds.length - 1].masks} masks of so few layers were tested at every verified prefix; whatever its layers, no single mask per sequence exceeds ${times(bounds[bounds.length - 1].speedup_any)}.`
    : " No bound was computed.";
  const words = `A mask drafts up to ${length} tokens on the full model's keys and values, and the full model verifies them, so that the output cannot change. Draft cost: of a draft token, in plain tokens. Pays below: draft cost at which drafting is as fast as plain decoding on this machine; flat: where verifying costs one token. The best masks are chosen on the sequences that they are judged on.${limit}`;
  return panel("Drafting for the full model", words, numbers("Skip masks as drafts", heads, [...cells, ...proven]));
};

const claimsPanel = (run) => {
  const heads = ["Claim", "published", "here (95 % interval)", "what is measured", "sample", "verdict"];
  const figure = (value) => (value === null || value === undefined ? "" : Number(value.toPrecision(3)).toString());
  const cells = run.extras.claims.map((row) => [
    `${row.claim} (${row.source})`, row.theirs,
    figure(row.value) + (row.low === null ? "" : between(figure(row.low), figure(row.high))),
    row.note ? `${row.figure}; ${row.note}` : row.figure, row.sample, row.verdict,
  ]);
  const words = "Published claims checked on this model, by rules fixed beforehand. The published figures are of larger models, some of them trained for the method.";
  return panel("Published claims", words, numbers("Published claims", heads, cells, ["published", "what is measured", "sample", "verdict"]));
};
