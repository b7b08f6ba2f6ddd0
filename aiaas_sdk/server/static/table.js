// A row of a table: a field for each column.

import { field, freshId, h } from "./dom.js";
import { isWhole } from "./kinds.js";

/** The form of a row. `inputs()` gives the tensors, or throws an Error whose text is for the user. */
export function tableForm(table, { changed, run }) {
  const controls = table.fields.map(({ name, datatype }) => control(name, datatype, changed));
  const fields = controls.map(({ element }, place) => {
    const { name, datatype } = table.fields[place];
    return datatype === "BOOL" ? h("div", { class: "field" }, h("label", { class: "check", for: element.id }, element, name)) : field(name, element);
  });
  const node = h("form", { class: "table-form", noValidate: true, onsubmit: (event) => { event.preventDefault(); run(); } },
    h("p", { class: "quiet" }, "One row: a field for each column. An empty one is sent as 0."),
    h("div", { class: "fields" }, fields),
    h("button", { type: "submit", class: "unseen", tabIndex: -1, "aria-hidden": "true" }, "Run"),
  );
  return { node, inputs: (strict) => table.inputs(controls.map((one) => one.value(strict))) };
}

function control(name, datatype, changed) {
  const whole = isWhole(datatype);
  const element = h("input", {
    id: freshId("column"), type: datatype === "BOOL" ? "checkbox" : "text", oninput: () => { element.removeAttribute("aria-invalid"); changed(); },
    inputMode: datatype === "BYTES" ? "text" : whole ? "numeric" : "decimal", autocomplete: "off", spellcheck: false,
    placeholder: datatype === "BYTES" ? "text" : datatype === "BOOL" ? undefined : "0",
  });
  const value = (strict) => {
    if (datatype === "BOOL") return element.checked;
    const text = element.value.trim();
    if (datatype === "BYTES") return element.value;
    if (text === "") return 0;
    const fits = whole ? /^[+-]?\d+$/.test(text) : Number.isFinite(Number(text));
    if (fits) return whole ? plain(BigInt(text.replace(/^\+/, ""))) : Number(text);
    if (strict) {
      element.setAttribute("aria-invalid", "true");
      element.focus();
    }
    throw new Error(`“${name}” is ${whole ? "a whole number" : "a number"}, and “${text.slice(0, 40)}” isn’t one.`);
  };
  return { element, value };
}

const plain = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : value);
