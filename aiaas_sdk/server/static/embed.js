// Texts to vectors.

import { codeBlock, curl, embedPython } from "./code.js";
import { field, h } from "./dom.js";
import { write } from "./json.js";
import { timingNode, troubleNode } from "./results.js";
import { call, serverTime } from "./server.js";

const PATH = "v1/embeddings";
const SHOWN = 8; // numbers of a vector

/** The panel of a model: {name}. */
export function embedPanel(model) {
  const code = codeBlock();
  const area = h("textarea", { rows: 5, oninput: refresh });
  const result = h("div", { class: "result", "aria-live": "polite" }, h("p", { class: "empty" }, "Nothing asked yet."));
  const button = h("button", { type: "submit", class: "main" }, "Embed");
  const texts = () => area.value.split("\n").map((line) => line.trim()).filter(Boolean);

  function refresh() {
    const given = texts().length ? texts() : ["a text", "another"];
    code.set({ python: embedPython({ name: model.name, texts: given }), curl: curl(PATH, { model: model.name, input: given }) });
  }

  async function run() {
    const given = texts();
    if (!given.length) return area.focus();
    button.textContent = "Running…";
    try {
      const begun = performance.now();
      const reply = await call(PATH, { method: "POST", body: write({ model: model.name, input: given }) });
      const answer = await reply.json();
      const took = performance.now() - begun;
      const timing = timingNode([["Round trip, measured here", took], ["In the server", serverTime(reply)], ["Tokens", answer.usage && String(answer.usage.prompt_tokens)]]);
      result.replaceChildren(h("div", {}, timing, shown(given, answer.data.map((entry) => entry.embedding))));
    } catch (error) {
      result.replaceChildren(troubleNode(error));
    } finally {
      button.textContent = "Embed";
    }
  }

  refresh();
  return h("div", { class: "work" },
    h("section", { class: "card", "aria-label": "Texts" }, h("h3", {}, "Texts"),
      h("form", { class: "say", onsubmit: (event) => { event.preventDefault(); run(); } },
        field("One text a line", area, "With several, each is compared with the first."), h("div", { class: "actions" }, button))),
    h("section", { class: "card", "aria-label": "Vectors" }, h("h3", {}, "Vectors"), result),
    code.node,
  );
}

function shown(texts, vectors) {
  const row = (text, place) => {
    const vector = vectors[place];
    const alike = place ? cosine(vectors[0], vector) : null;
    return h("li", {},
      h("p", { class: "said" }, text),
      alike === null ? null : h("p", { class: "quiet small" }, `Cosine similarity with the first: ${alike.toFixed(3)}`),
      h("code", { class: "vector" }, `[${vector.slice(0, SHOWN).map((value) => Number(value).toFixed(4)).join(", ")}${vector.length > SHOWN ? ", …" : ""}]`));
  };
  return h("div", { class: "answer" }, h("p", {}, `${vectors.length} × ${vectors[0]?.length ?? 0} numbers`), h("ol", { class: "vectors" }, texts.map(row)));
}

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, place) => sum + value * y[place], 0);
  return dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) || 1);
}
