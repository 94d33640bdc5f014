"use strict";
// Texts of models and data sets become text nodes and attribute values, never markup.
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
};

const find = (id) => document.getElementById(id);

const unpack = async (name) => {
  const binary = atob(find(`data-${name}`).textContent);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};

const unpackData = async (name) => JSON.parse(await unpack(name));

const percent = (share) => (share === null ? "" : `${(100 * share).toFixed(1)}\u00a0%`);

const score = (value) => (value === null ? "" : value.toFixed(3));

const counts = (measure) => measure === "layers" || measure === "sublayers";

// A cost without its unit: whole layers, milliseconds to the microsecond, FLOPs with a prefix.
const costText = (value, measure) => {
  if (counts(measure)) return String(value);
  if (measure === "ms/token") return value.toFixed(3);
  const [size, prefix] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([least]) => value >= least) ?? [1, ""];
  return `${(value / size).toFixed(1)}\u00a0${prefix}`;
};

const cut = (text, longest) => (text.length > longest ? `${text.slice(0, longest - 1)}\u2026` : text);

const nextFrame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
