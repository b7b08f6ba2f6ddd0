// Asking a model for a prediction: a form that fits its inputs, the answer, and the call as code.

import { codeBlock, curl, predictPython } from "./code.js";
import { h, tabs } from "./dom.js";
import { editorForm } from "./editor.js";
import { read, write } from "./json.js";
import { pictureOf, tableOf, template } from "./kinds.js";
import { pictureForm } from "./picture.js";
import { resultNode, scored, timingNode, troubleNode } from "./results.js";
import { call, modelPath, serverTime } from "./server.js";
import { tableForm } from "./table.js";

/** The panel of a model: {name, version, inputs, outputs, labels, metadata}; version is "" for the one that is current. */
export function predictPanel(model) {
  const code = codeBlock();
  const result = h("div", { class: "result", "aria-live": "polite" }, empty());
  const button = h("button", { type: "button", class: "main", onclick: () => run(true) }, "Run");
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  let running = null;
  let top = Boolean(model.labels);

  const hooks = { changed: () => refresh(), settled: () => run(false), run: () => run(true) };
  const picture = pictureOf(model.inputs);
  const table = picture ? null : tableOf(model.inputs, model.metadata);
  const editor = editorForm(template(model.inputs), hooks);
  const own = picture ? pictureForm(picture, hooks) : table ? tableForm(table, hooks) : null;
  let form = own ?? editor;
  const ways = own ? tabs("How to give the input", [[picture ? "Picture" : "Form", own.node], ["JSON", editor.node]], 0, chosen) : editor.node;

  function chosen(place) {
    if (place === 1 && !editor.touched) {
      try { editor.fill(own.inputs(false)); } catch { /* the template stands */ }
    }
    form = place === 0 ? own : editor;
    refresh();
  }

  /** The code of what would be sent now; where the form can't say yet, the code stays. */
  function refresh() {
    trouble.hidden = true;
    try {
      tell(form.inputs(false));
    } catch { /* `run` says why */ }
  }

  function tell(inputs) {
    const bytes = form.bytes?.() ?? {};
    code.set({ python: predictPython({ ...model, inputs, bytes, top }), curl: curl(`${modelPath(model.name, model.version)}/infer`, { inputs }) });
  }

  async function run(strict) {
    let inputs;
    try {
      inputs = form.inputs(strict);
    } catch (error) {
      trouble.textContent = error.message;
      trouble.hidden = false;
      return;
    }
    running?.abort();
    const mine = (running = new AbortController());
    button.textContent = "Running…";
    result.setAttribute("aria-busy", "true");
    try {
      result.replaceChildren(await asked(model, inputs, mine.signal, (known) => { top = known; }));
      tell(inputs);
    } catch (error) {
      if (mine !== running || error.name === "AbortError") return;
      result.replaceChildren(troubleNode(error));
    } finally {
      if (mine === running) {
        button.textContent = "Run";
        result.removeAttribute("aria-busy");
      }
    }
  }

  refresh();
  return h("div", { class: "work" },
    h("section", { class: "card", "aria-label": "Input" }, h("h3", {}, "Input"), ways, trouble, h("div", { class: "actions" }, button)),
    h("section", { class: "card", "aria-label": "Answer" }, h("h3", {}, "Answer"), result),
    code.node,
  );
}

async function asked(model, inputs, signal, found) {
  const begun = performance.now();
  const reply = await call(`${modelPath(model.name, model.version)}/infer`, { method: "POST", body: write({ inputs }), signal });
  const text = await reply.text();
  const took = performance.now() - begun;
  const answer = read(text);
  found(scored(answer.outputs ?? [], model.labels));
  const timing = timingNode([["Round trip, measured here", took], ["In the server", serverTime(reply)], ["Version", answer.model_version]]);
  return h("div", {}, timing, resultNode(answer, model.labels));
}

const empty = () => h("p", { class: "empty" }, "Nothing asked yet.");
