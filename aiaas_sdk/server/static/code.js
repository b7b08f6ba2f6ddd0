// The same call as Python and as curl, to be copied.

import { h, tabs } from "./dom.js";
import { python, write } from "./json.js";
import { base, keyed, modelPath } from "./server.js";

const DTYPES = {
  BOOL: "np.bool_", UINT8: "np.uint8", UINT16: "np.uint16", UINT32: "np.uint32", UINT64: "np.uint64",
  INT8: "np.int8", INT16: "np.int16", INT32: "np.int32", INT64: "np.int64", FP16: "np.float16", FP32: "np.float32", FP64: "np.float64",
};
const LONGEST_LINE = 4000; // characters that are shown; "Copy" takes all
let chosen = 0; // Python or curl: as it was chosen last

/** The code of a call with a button to copy it. `set({python, curl})` changes it. */
export function codeBlock() {
  const parts = { python: part("Copy the Python"), curl: part("Copy the curl command") };
  const node = h("section", { class: "card code-card", "aria-label": "The same call as code" },
    h("h3", {}, "The same call"),
    tabs("Language", [["Python", parts.python.node], ["curl", parts.curl.node]], chosen, (place) => { chosen = place; }),
  );
  return { node, set: (texts) => Object.entries(texts).forEach(([name, text]) => parts[name].set(text)) };
}

function part(label) {
  let text = "";
  const code = h("code", {});
  const status = h("span", { class: "quiet small", role: "status" });
  const button = h("button", { type: "button", class: "small", "aria-label": label, onclick: () => copy(text, status) }, "Copy");
  const node = h("div", { class: "snippet" }, h("div", { class: "snippet-bar" }, status, button), h("pre", { tabIndex: 0 }, code));
  return {
    node,
    set(whole) {
      text = whole;
      const lines = whole.split("\n").map(shortened);
      code.textContent = lines.join("\n");
      status.textContent = code.textContent === whole ? "" : "Shortened here; Copy takes all";
    },
  };
}

/** A line without its middle where it is very long: a picture's pixels. */
function shortened(line) {
  if (line.length <= LONGEST_LINE) return line;
  const left = line.length - 280;
  return `${line.slice(0, 200)} … ${left.toLocaleString("en")} more characters … ${line.slice(-80)}`;
}

async function copy(text, status) {
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = "Copied";
  } catch {
    status.textContent = byHand(text) ? "Copied" : "The browser doesn’t let this page copy: select the text instead";
  }
}

/** Without a secure context there is no clipboard object; the old command works. */
function byHand(text) {
  const area = h("textarea", { class: "unseen", value: text });
  const before = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  return done;
}

// ---------------------------------------------------------------- Python
const opened = (address) => `aiaas.load(${JSON.stringify(address)}${keyed() ? ', api_key=aiaas.env("AIAAS_API_KEY")' : ""})`;

/** predict. `bytes` are pictures' pixels by input name: shorter than their numbers. */
export function predictPython({ name, version, inputs, bytes = {}, top }) {
  const given = inputs.map((input) => `    ${JSON.stringify(input.name)}: ${input.name in bytes ? ofBytes(input, bytes[input.name]) : ofValues(input)},`);
  return lines(
    Object.keys(bytes).length ? "import base64\n" : null,
    "import aiaas_sdk as aiaas", "import numpy as np", "",
    "inputs = {", ...given, "}",
    `with ${opened(`${base}/${modelPath(name, version)}`)} as model:`,
    "    answer = model.predict(inputs)",
    "    for name, array in answer.items():",
    "        print(name, array)",
    top ? "    print(answer.top(3))" : null,
  );
}

function ofBytes({ datatype, shape }, pixels) {
  const text = btoa(Array.from(pixels, (value) => String.fromCharCode(value)).join(""));
  const array = `np.frombuffer(base64.b64decode(${JSON.stringify(text)}), np.uint8).reshape(${tuple(shape)})`;
  return datatype === "UINT8" ? array : `(${array} / np.float32(255)).astype(${DTYPES[datatype] ?? "np.float32"})`;
}

function ofValues({ datatype, shape, data }) {
  const flat = data.flat(Infinity);
  const array = datatype === "BYTES" ? `np.array([${flat.map((text) => `${python(text)}.encode()`).join(", ")}], dtype=object)` : `np.array(${python(flat)}, dtype=${DTYPES[datatype] ?? "np.float32"})`;
  return `${array}.reshape(${tuple(shape)})`;
}

const tuple = (shape) => (shape.length === 1 ? String(shape[0]) : `(${shape.join(", ")})`);

const spoken = (name) => opened(`openai+${base}/v1#${name}`);

export function chatPython({ name, messages, sampling, streams }) {
  const options = Object.entries(sampling).map(([option, value]) => `, ${option}=${python(value)}`).join("");
  return lines(
    "import aiaas_sdk as aiaas", "",
    "messages = [", ...messages.map((message) => `    ${python(message)},`), "]",
    `with ${spoken(name)} as model:`,
    ...(streams
      ? [`    with model.stream(messages${options}) as stream:`, "        for delta in stream:", '            print(delta.text, end="", flush=True)']
      : [`    print(model.generate(messages${options}).text)`]),
  );
}

export function embedPython({ name, texts }) {
  return lines(
    "import aiaas_sdk as aiaas", "",
    `with ${spoken(name)} as model:`,
    `    vectors = model.embed(${python(texts)}).array`,
    "    print(vectors.shape, vectors)",
  );
}

const lines = (...parts) => `${parts.filter((part) => part !== null).join("\n")}\n`;

// ---------------------------------------------------------------- curl
export function curl(path, body, { streams = false } = {}) {
  const key = keyed() ? '  -H "Authorization: Bearer $AIAAS_API_KEY" \\\n' : "";
  return `curl -sS${streams ? "N" : ""} ${quoted(`${base}/${path}`)} \\\n  -H 'Content-Type: application/json' \\\n${key}  --data-binary @- <<'JSON'\n${write(body)}\nJSON\n`;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
