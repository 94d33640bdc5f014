// Words of an output that differ from the full model's: the longest common subsequence of words, between a common start
// and a common end. Where a table of both is too large, only start and end count as common.
const MOST_CELLS = 4e6;
const MOST_GONE = 12;

const wordsOf = (text) => text.match(/\S+\s*|^\s+/gu) ?? [];

// Length of the longest common subsequence of a[i..] and b[j..] at i * (b.length + 1) + j.
const commonTable = (a, b) => {
  const width = b.length + 1;
  const table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const at = i * width + j;
      table[at] = a[i] === b[j] ? table[at + width + 1] + 1 : Math.max(table[at + width], table[at + 1]);
    }
  }
  return table;
};

// Per step whether a word is the same, missing from `b` or new in it.
const stepsOf = (a, b) => {
  const all = (kind, words) => words.map(() => kind);
  if (a.length * b.length > MOST_CELLS) return [...all("gone", a), ...all("new", b)];
  const table = commonTable(a, b);
  const width = b.length + 1;
  const steps = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    const at = i * width + j;
    const kind = a[i] === b[j] ? "same" : table[at + width] >= table[at + 1] ? "gone" : "new";
    steps.push(kind);
    if (kind !== "new") i++;
    if (kind !== "gone") j++;
  }
  return [...steps, ...all("gone", a.slice(i)), ...all("new", b.slice(j))];
};

const difference = (before, after) => {
  const [a, b] = [wordsOf(before), wordsOf(after)];
  const [x, y] = [a, b].map((words) => words.map((word) => word.trim()));
  const least = Math.min(x.length, y.length);
  let start = 0;
  while (start < least && x[start] === y[start]) start++;
  let end = 0;
  while (end < least - start && x[x.length - 1 - end] === y[y.length - 1 - end]) end++;
  const middle = stepsOf(x.slice(start, x.length - end), y.slice(start, y.length - end));
  const parts = [];
  let [i, j] = [0, 0];
  for (const kind of [...Array(start).fill("same"), ...middle, ...Array(end).fill("same")]) {
    if (parts.at(-1)?.kind !== kind) parts.push({ kind, words: [] });
    parts.at(-1).words.push(kind === "gone" ? a[i] : b[j]);
    if (kind !== "new") i++;
    if (kind !== "gone") j++;
  }
  return parts;
};

// The output as text: new words marked, missing ones struck out; long runs of missing ones are only counted.
const marked = (before, after) => {
  const box = make("p", { class: "text" });
  for (const { kind, words } of difference(before, after)) {
    const shown = kind === "gone" && words.length > MOST_GONE ? MOST_GONE - 4 : words.length;
    const text = words.slice(0, shown).join("");
    const bare = text.trimEnd();
    const left = words.length - shown;
    box.append(kind === "same" ? bare : make(kind === "new" ? "ins" : "del", {}, bare));
    box.append(left ? ` (and ${left} more words) ` : text.slice(bare.length) || " ");
  }
  return box;
};
