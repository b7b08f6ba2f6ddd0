// An answer as people read it: labels as bars, numbers as numbers, and the whole of it as it came.

import { duration, h } from "./dom.js";
import { isFloat, isWhole } from "./kinds.js";
import { write } from "./json.js";

const MOST_BARS = 10;
const MOST_ROWS = 4;
const MOST_VALUES = 24;

/** Probabilities as the package's `Prediction.top` has them: softmax, unless they are some already. */
export function probabilities(scores) {
  const sum = scores.reduce((total, score) => total + score, 0);
  if (scores.every((score) => score >= 0) && Math.abs(sum - 1) <= 1e-3 + 1e-5) return { values: scores, given: true };
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = scores.map((score) => Math.exp(score - most));
  const all = powers.reduce((total, power) => total + power, 0);
  return { values: powers.map((power) => power / all), given: false };
}

/** Whether an answer is scores of classes: what `top` takes, with labels, or probabilities already. */
export function scored(outputs, labels) {
  if (outputs.length !== 1) return false;
  const [{ datatype, shape, data }] = outputs;
  const classes = shape.at(-1);
  if (!(isFloat(datatype) || isWhole(datatype)) || shape.length < 1 || shape.length > 2 || classes < 2) return false;
  if (!data?.length || data.some((value) => typeof value !== "number")) return false;
  if (labels) return labels.length === classes;
  return isFloat(datatype) && probabilities(data.slice(0, classes)).given;
}

export function resultNode(answer, labels) {
  const outputs = answer.outputs ?? [];
  const shown = scored(outputs, labels) ? bars(outputs[0], labels) : outputs.map(values);
  return h("div", { class: "answer" }, shown, whole(answer));
}

function bars({ name, shape, data }, labels) {
  const classes = shape.at(-1);
  const rows = data.length / classes;
  const lists = [];
  for (let row = 0; row < Math.min(rows, MOST_ROWS); row++) {
    if (rows > 1) lists.push(h("h4", {}, `Row ${row + 1}`));
    lists.push(...barsOfRow(data.slice(row * classes, (row + 1) * classes), labels));
  }
  if (rows > MOST_ROWS) lists.push(h("p", { class: "quiet" }, `${rows - MOST_ROWS} more rows are in the whole answer.`));
  const { given } = probabilities(data.slice(0, classes));
  const how = given ? `The output “${name}” holds probabilities, shown as given.` : `The output “${name}” holds scores; the percentages are their softmax, as Prediction.top gives it.`;
  return [...lists, h("p", { class: "quiet small" }, how)];
}

function barsOfRow(scores, labels) {
  const { values, given } = probabilities(scores);
  const order = values.map((_, place) => place).sort((a, b) => values[b] - values[a] || a - b);
  const bar = (place) => {
    const fill = h("span", { class: "fill" });
    fill.style.width = `${(100 * values[place]).toFixed(2)}%`;
    return h("li", {},
      h("span", { class: "label" }, labels?.[place] ?? String(place)),
      h("span", { class: "track", "aria-hidden": "true" }, fill),
      h("span", { class: "percent" }, percent(values[place])),
      given ? null : h("span", { class: "score", title: "the score as the model gave it" }, number(scores[place], 4)),
    );
  };
  const list = h("ol", { class: given ? "bars" : "bars scored", "aria-label": "Classes, likeliest first" }, order.slice(0, MOST_BARS).map(bar));
  const more = order.length > MOST_BARS ? h("p", { class: "quiet small" }, `The ${MOST_BARS} likeliest of ${order.length}.`) : null;
  return more ? [list, more] : [list];
}

const percent = (value) => (value > 0 && value < 0.001 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`);

function number(value, digits = 6) {
  if (value === null) return "no number"; // NaN and infinity travel as null
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(digits)));
}

function values({ name, datatype, shape, data }) {
  const head = h("h4", {}, name, " ", h("span", { class: "type" }, `${datatype} [${shape.join(", ")}]`));
  const flat = (data ?? []).flat(Infinity);
  if (flat.length === 1) return h("section", { class: "output" }, head, h("p", { class: "big" }, shownValue(flat[0])));
  const cells = flat.slice(0, MOST_VALUES).map((value) => h("li", {}, shownValue(value)));
  const more = flat.length > MOST_VALUES ? h("p", { class: "quiet small" }, `The first ${MOST_VALUES} of ${flat.length.toLocaleString("en")} values.`) : null;
  return h("section", { class: "output" }, head, flat.length ? h("ol", { class: "values", start: 0 }, cells) : h("p", { class: "quiet" }, "No values."), more);
}

const shownValue = (value) => (value === "" ? h("span", { class: "quiet" }, "an empty text") : typeof value === "string" || typeof value === "boolean" ? String(value) : number(value));

function whole(answer) {
  const text = write(answer);
  const most = 20_000;
  const cut = text.length > most ? `${text.slice(0, most)}\n… ${(text.length - most).toLocaleString("en")} more characters` : text;
  return h("details", {}, h("summary", {}, "The whole answer"), h("pre", { tabIndex: 0 }, cut));
}

/** How long it took, as measured here, and by the server where it tells. */
export function timingNode(parts) {
  return h("dl", { class: "timing" }, parts.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, typeof value === "number" ? duration(value) : value))));
}

/** An error, with what to do next. */
export function troubleNode(error) {
  return h("div", { class: "trouble", role: "alert" },
    h("strong", {}, error.title ?? "That didn’t work"), h("p", {}, error.message), error.advice ? h("p", {}, error.advice) : null);
}
