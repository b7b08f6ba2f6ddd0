// The page: the list of models, the one that is chosen, and what is known of it.

import { chatPanel } from "./chat.js";
import { field, h, tabs } from "./dom.js";
import { embedPanel } from "./embed.js";
import { predictPanel } from "./predict.js";
import { troubleNode } from "./results.js";
import { call, keyed, modelPath, useKey } from "./server.js";

const SOON = 2000; // milliseconds between two looks while something isn't ready
const LATER = 10_000;
const STATES = { READY: "Ready", LOADING: "Loading", UNAVAILABLE: "Not available" };
const part = (id) => document.getElementById(id);
const main = part("main");
const head = h("div", { class: "head" });
const body = h("div", { class: "body" });

let models = [];
let version = ""; // "" is the current one
let shown = ""; // what the head and the body show, as text: the same isn't drawn again
let drawn = "";
let timer = 0;

// ---------------------------------------------------------------- looking
async function look() {
  clearTimeout(timer);
  try {
    const told = await (await call("overview")).json();
    part("server").textContent = told.server;
    part("banner").hidden = true;
    pulse(true);
    models = told.models;
    draw();
  } catch (error) {
    failed(error);
  }
  const soon = !models.length || models.some((model) => model.state !== "READY");
  timer = setTimeout(look, document.hidden ? 6 * LATER : soon ? SOON : LATER);
}

function failed(error) {
  pulse(error.status !== 0);
  if (error.status === 401 || error.status === 403) {
    part("key-button").hidden = false;
    openKey(true);
    models = [];
    shown = drawn = "";
    part("models").replaceChildren();
    main.replaceChildren(h("div", { class: "notice" }, h("h1", {}, keyed() ? "This key isn’t accepted" : "This server wants an API key"), h("p", {}, error.message)));
    return;
  }
  part("banner").textContent = error.status === 0 ? "The server doesn’t answer. This page goes on trying." : `${error.title ?? "The page failed"}: ${error.message}`;
  part("banner").hidden = false;
}

function pulse(up) {
  part("pulse").className = up ? "pulse up" : "pulse down";
  part("pulse").textContent = up ? "Connected" : "No connection";
}

// ---------------------------------------------------------------- drawing
const named = () => new URLSearchParams(location.hash.slice(1)).get("model");
const chosen = () => models.find((model) => model.name === named()) ?? models[0];

function draw() {
  list();
  const model = chosen();
  if (!model) {
    main.replaceChildren(h("div", { class: "notice" }, h("h1", {}, "No model is served"), h("p", {}, "Start the server with a folder of bundles, or with addresses: aiaas serve models/")));
    return;
  }
  document.title = `${model.name} · models`;
  const now = JSON.stringify([model, version]);
  if (now !== shown) {
    shown = now;
    if (head.parentNode !== main) main.replaceChildren(head, body);
    drawHead(model);
  }
  const work = JSON.stringify([model.name, model.state, model.version, version, model.inputs, model.verbs, model.labels, keyed()]);
  if (work !== drawn) {
    drawn = work;
    drawBody(model);
  }
}

function list() {
  const nav = part("models");
  nav.hidden = models.length < 2;
  const current = chosen();
  const links = models.map((model) => h("a", { href: `#model=${encodeURIComponent(model.name)}`, "aria-current": model === current ? "page" : null },
    h("span", { class: `dot ${model.state.toLowerCase()}`, "aria-hidden": "true" }),
    h("span", { class: "name" }, model.name),
    model.state === "READY" ? null : h("span", { class: "quiet small" }, STATES[model.state] ?? model.state)));
  const text = links.map((link) => link.outerHTML).join("");
  if (nav.dataset.shown === text) return;
  const focus = nav.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  nav.dataset.shown = text;
  nav.replaceChildren(h("h2", {}, "Models"), h("ul", {}, links.map((link) => h("li", {}, link))));
  links.find((link) => link.getAttribute("href") === focus)?.focus();
}

function drawHead(model) {
  const facts = [model.platform, model.device, model.metadata?.precision].filter((fact) => typeof fact === "string" && fact);
  head.replaceChildren(
    h("div", { class: "title" }, h("h1", {}, model.name), badge(model.state), versions(model)),
    facts.length ? h("p", { class: "facts" }, facts.join(" · ")) : "",
    ...problems(model),
  );
}

const badge = (state) => h("span", { class: `badge ${state.toLowerCase()}` }, STATES[state] ?? state);

function versions(model) {
  if ((model.versions?.length ?? 0) < 2) return model.version ? h("span", { class: "quiet" }, `Version ${model.version}`) : null;
  const others = model.versions.filter((one) => one !== model.version);
  const select = h("select", { onchange: () => { version = select.value; draw(); } },
    h("option", { value: "" }, `${model.version} (current)`), others.reverse().map((one) => h("option", { value: one }, one)));
  select.value = version;
  const line = field("Version", select);
  line.classList.add("inline");
  return line;
}

function problems(model) {
  if (model.state !== "READY") return []; // the body says it
  const caution = (title, why, after) => h("div", { class: "caution", role: "status" }, h("strong", {}, title), h("p", {}, why), after ? h("p", { class: "quiet" }, after) : null);
  return [
    ...Object.entries(model.failures).map(([which, why]) => caution(`Version ${which} couldn’t be loaded`, why, `Version ${model.version} goes on serving.`)),
    ...Object.entries(model.notes).map(([which, why]) => caution(`Version ${which}`, why)),
  ];
}

async function drawBody(model) {
  if (model.state !== "READY") {
    const loading = model.state === "LOADING";
    body.replaceChildren(h("div", { class: loading ? "notice" : "notice bad", role: "status" },
      h("h2", {}, loading ? "The model is being loaded" : "The model isn’t available"),
      h("p", {}, model.reason ?? (loading ? "This page shows it when it is ready." : "The server’s log says why."))));
    return;
  }
  const mine = drawn;
  let signature = model;
  if (version) {
    body.replaceChildren(h("p", { class: "empty" }, `Opening version ${version}…`));
    try {
      signature = told(model, await (await call(modelPath(model.name, version))).json());
    } catch (error) {
      if (mine === drawn) body.replaceChildren(troubleNode(error));
      return;
    }
    if (mine !== drawn) return; // another one was chosen meanwhile
  }
  const panels = panelsOf({ ...signature, version });
  body.replaceChildren(
    panels.length > 1 ? tabs("What to ask", panels) : panels[0]?.[1] ?? h("p", { class: "empty" }, "This page has no way to ask this model."),
    signatureNode(signature),
  );
}

/** What the protocol says of a version, in the form of the overview. */
function told(model, metadata) {
  const { labels = null, ...facts } = metadata.parameters ?? {};
  return { ...model, inputs: metadata.inputs ?? [], outputs: metadata.outputs ?? [], labels, metadata: facts };
}

function panelsOf(model) {
  const can = (...verbs) => verbs.some((verb) => model.verbs.includes(verb));
  const panels = [];
  if (can("predict")) panels.push(["Predict", predictPanel(model)]);
  if (can("generate", "stream") && !model.version) panels.push(["Chat", chatPanel(model)]);
  if (can("embed") && !model.version) panels.push(["Embed", embedPanel(model)]);
  // a model without inputs speaks first of all
  return model.inputs.length || panels.length < 2 ? panels : [...panels.slice(1), panels[0]];
}

function signatureNode(model) {
  const table = (title, specs) => h("div", {}, h("h4", {}, title), specs.length
    ? h("ul", { class: "specs" }, specs.map(({ name, datatype, shape }) => h("li", {}, h("code", {}, name), h("span", { class: "type" }, `${datatype} [${shape.map((size) => (size === -1 ? "any" : size)).join(", ")}]`))))
    : h("p", { class: "quiet" }, "Not declared."));
  const labels = model.labels?.length ? h("div", {}, h("h4", {}, `Labels (${model.labels.length})`), h("ul", { class: "chips" }, model.labels.slice(0, 60).map((label) => h("li", {}, label)), model.labels.length > 60 ? h("li", { class: "quiet" }, `and ${model.labels.length - 60} more`) : null)) : null;
  const facts = Object.entries(model.metadata ?? {}).filter(([, value]) => ["string", "number", "boolean"].includes(typeof value));
  if (!model.inputs.length && !model.outputs.length && !labels && !facts.length) return "";
  return h("section", { class: "card signature", "aria-label": "Signature" }, h("h3", {}, "Signature"),
    h("div", { class: "signature-parts" }, table("Inputs", model.inputs), table("Outputs", model.outputs), labels),
    facts.length ? h("details", {}, h("summary", {}, "More about it"), h("dl", { class: "metadata" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))))) : null);
}

// ---------------------------------------------------------------- the key
function openKey(yes) {
  part("key-form").hidden = !yes;
  part("key-button").setAttribute("aria-expanded", String(yes));
}

part("key-button").addEventListener("click", () => {
  openKey(part("key-form").hidden);
  if (!part("key-form").hidden) part("key").focus();
});
part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(part("key").value);
  part("key").value = "";
  part("key-button").classList.toggle("on", keyed());
  part("key-button").textContent = keyed() ? "API key: given" : "API key";
  openKey(false);
  main.focus();
  look();
});

window.addEventListener("hashchange", () => {
  version = "";
  draw();
  main.focus();
});
document.addEventListener("visibilitychange", () => !document.hidden && look());
window.addEventListener("online", look);
window.addEventListener("offline", look);
look();
