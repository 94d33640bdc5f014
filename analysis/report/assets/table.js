// The table of sequences: search, sorting, pages and details.
const PAGE = 50;

const COLUMNS = [
  { key: "id", title: "Sequence", words: (run, n) => run.rows.id[n] },
  { key: "task", title: "Task", words: (run, n) => run.parts[run.rows.part[n]].name },
  { key: "upper", title: "Budget", number: true },
  { key: "fraction", title: "Fraction", number: true },
  { key: "quality", title: "Quality", number: true },
  { key: "full", title: "Full model", number: true },
  { key: "layers", title: "Layers that run", by: "upper" },
];

const COLLATOR = new Intl.Collator("en", { numeric: true });

const comparison = (run, column) => {
  if (column.words) return (a, b) => COLLATOR.compare(column.words(run, a), column.words(run, b));
  const values = run.rows[column.by ?? column.key];
  return (a, b) => values[a] - values[b];
};

const CELLS = {
  id: (run, n, open) => [
    make("button", { type: "button", class: "opener", "aria-expanded": String(open), "aria-controls": `opened-${n}` }, run.rows.id[n]),
    make("span", { class: "excerpt" }, cut(run.rows.prompt[n], 160)),
  ],
  task: (run, n) => [run.parts[run.rows.part[n]].name],
  upper: ({ rows, measure }, n) => {
    const kind = untold(rows, n) ? "zero" : rows.proven[n] ? "proven" : "open";
    const words = { zero: "tells nothing", proven: "proven", open: `\u2265\u00a0${costText(rows.lower[n], measure)}` }[kind];
    const title = kind === "zero" ? rows.vacuous[n] || "the full model scores zero: any allocation will do" : rows.proof[n];
    return [costText(rows.upper[n], measure), make("span", { class: `bound ${kind}`, title }, words)];
  },
  fraction: (run, n) => [percent(run.rows.fraction[n])],
  quality: (run, n) => [score(run.rows.quality[n])],
  full: (run, n) => [score(run.rows.full[n])],
  layers: (run, n) => [strip(run.rows.layers[n], run.layers)],
};

const classOf = ({ key, number }) => `of-${key}${number ? " number" : ""}`;

class SequenceTable {
  constructor(run) {
    const { rows, parts } = run;
    this.run = run;
    this.columns = COLUMNS.filter(({ key }) => key !== "task" || parts.length > 1);
    this.texts = rows.id.map((id, n) => [id, parts[rows.part[n]].name, rows.prompt[n], ...rows.references[n]].join("\n").toLowerCase());
    Object.assign(this, { chosen: [], shown: [], words: [], column: null, falling: false, page: 0, open: new Set() });
    this.listen();
    this.renderHeads();
  }

  listen() {
    find("search").addEventListener("input", ({ target }) => this.search(target.value));
    find("rows").addEventListener("keydown", (event) => this.move(event));
    find("rows").addEventListener("click", ({ target }) => {
      const line = target.closest(".row");
      const selecting = !target.closest("button") && String(getSelection()) !== "";
      if (line && !selecting) this.toggle(line);
    });
    const ways = this.columns.filter(({ by }) => !by).flatMap((column) => [[column, false], [column, true]]);
    const names = ways.map(([{ title }, falling]) => `${title}${falling ? ", falling" : ""}`);
    find("sort").append(...["order of the run", ...names].map((name, i) => make("option", { value: i }, name)));
    find("sort").addEventListener("change", ({ target }) => this.sort(...(ways[target.value - 1] ?? [null, false])));
  }

  choose(chosen) {
    this.chosen = chosen;
    this.refresh();
  }

  search(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.refresh();
  }

  sort(column, falling) {
    Object.assign(this, { column, falling });
    this.renderHeads();
    this.refresh();
  }

  refresh() {
    this.shown = this.chosen.filter((n) => this.words.every((word) => this.texts[n].includes(word)));
    if (this.column) {
      const compare = comparison(this.run, this.column);
      this.shown.sort((a, b) => (this.falling ? compare(b, a) : compare(a, b)) || a - b);
    }
    this.page = 0;
    this.render();
  }

  renderHeads() {
    const heads = this.columns.map((column) => {
      const way = this.column !== column ? "none" : this.falling ? "descending" : "ascending";
      const button = make("button", { type: "button" }, column.title);
      button.addEventListener("click", () => {
        this.sort(column, way === "ascending");
        find("heads").querySelector(`.of-${column.key} button`).focus();
      });
      return make("th", { scope: "col", class: classOf(column), "aria-sort": way }, button);
    });
    find("heads").replaceChildren(...heads);
  }

  render() {
    const start = this.page * PAGE;
    const here = this.shown.slice(start, start + PAGE);
    const none = make("tr", { class: "none" }, make("td", { colspan: this.columns.length }, "No sequence matches; try fewer words or another task."));
    find("rows").replaceChildren(...(here.length ? here.flatMap((n) => this.rowsOf(n)) : [none]));
    const all = this.run.rows.id.length;
    const of = this.shown.length === all ? "" : ` of ${all}`;
    const range = this.shown.length > PAGE ? `, ${start + 1}\u2013${start + here.length} shown` : "";
    find("count").textContent = `${this.shown.length}${of} sequences${range}`;
    this.renderPages(Math.ceil(this.shown.length / PAGE));
  }

  renderPages(pages) {
    const turn = (by, words) => {
      const button = make("button", { type: "button", disabled: this.page + by < 0 || this.page + by >= pages }, words);
      button.addEventListener("click", () => {
        this.page += by;
        this.render();
        find("sequences").scrollIntoView();
        find("rows").querySelector(".opener").focus({ preventScroll: true });
      });
      return button;
    };
    find("pages").replaceChildren(...(pages > 1 ? [turn(-1, "Previous"), `page ${this.page + 1} of ${pages}`, turn(1, "Next")] : []));
  }

  rowsOf(n) {
    const open = this.open.has(n);
    const cells = this.columns.map((column, i) => make(i ? "td" : "th", { class: classOf(column), scope: i ? null : "row" }, ...CELLS[column.key](this.run, n, open)));
    const line = make("tr", { class: `row${open ? " open" : ""}`, "data-n": n }, ...cells);
    return open ? [line, this.openedRow(n)] : [line];
  }

  openedRow(n) {
    const box = make("td", { colspan: this.columns.length }, "\u2026");
    opened(this.run, n).then((content) => box.replaceChildren(...content));
    return make("tr", { class: "opened", id: `opened-${n}` }, box);
  }

  toggle(line) {
    const n = Number(line.dataset.n);
    const open = !this.open.delete(n);
    if (open) {
      this.open.add(n);
      line.after(this.openedRow(n));
    } else {
      line.nextElementSibling.remove();
    }
    line.classList.toggle("open", open);
    line.querySelector(".opener").setAttribute("aria-expanded", String(open));
  }

  // Opens a sequence on any page of the table.
  show(n) {
    if (!this.shown.includes(n)) this.search((find("search").value = ""));
    this.page = Math.floor(this.shown.indexOf(n) / PAGE);
    this.open.add(n);
    this.render();
    const line = find("rows").querySelector(`.row[data-n="${n}"]`);
    line.scrollIntoView({ block: "center" });
    line.querySelector(".opener").focus({ preventScroll: true });
  }

  move(event) {
    const openers = [...find("rows").querySelectorAll(".opener")];
    const at = openers.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: openers.length - 1 }[event.key];
    if (event.key === "Escape") {
      const line = event.target.closest(".row.open") ?? event.target.closest(".opened")?.previousElementSibling;
      if (line) this.toggle(line);
      line?.querySelector(".opener").focus();
    } else if (at >= 0 && openers[to]) {
      event.preventDefault();
      openers[to].focus();
    }
  }
}
