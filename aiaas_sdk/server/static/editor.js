// The request as JSON, for whatever has no form of its own.

import { field, h } from "./dom.js";
import { read, write } from "./json.js";

/** The editor. `inputs()` gives the tensors, or throws an Error whose text is for the user. */
export function editorForm(start, { changed }) {
  const area = h("textarea", { class: "code", rows: 12, spellcheck: false, oninput: () => { touched = true; area.removeAttribute("aria-invalid"); changed(); } });
  let touched = false;
  const fill = (inputs) => { area.value = laidOut(inputs); };
  fill(start);
  return {
    node: field("Inputs", area, "A list of tensors: name, datatype, shape, and data, flat or nested."),
    get touched() { return touched; },
    fill,
    inputs(strict) {
      try {
        return checked(read(area.value));
      } catch (error) {
        if (strict) { area.setAttribute("aria-invalid", "true"); area.focus(); }
        throw error instanceof SyntaxError ? new Error(`This isn’t JSON: ${error.message}`) : error;
      }
    },
  };
}

function checked(inputs) {
  if (!Array.isArray(inputs)) throw new Error("Inputs are a list: [{\"name\": …, \"datatype\": …, \"shape\": […], \"data\": […]}]");
  for (const input of inputs) {
    for (const member of ["name", "datatype", "shape", "data"]) {
      if (input === null || typeof input !== "object" || !(member in input)) throw new Error(`Each input has a “${member}”.`);
    }
    if (!Array.isArray(input.shape) || !Array.isArray(input.data)) throw new Error(`Shape and data of “${input.name}” are lists.`);
  }
  return inputs;
}

/** One line for each member, so that long data stay one line. */
function laidOut(inputs) {
  const one = (input) => `  {\n${Object.entries(input).map(([name, value]) => `    ${JSON.stringify(name)}: ${write(value)}`).join(",\n")}\n  }`;
  return `[\n${inputs.map(one).join(",\n")}\n]`;
}
