// Elements, made without HTML: text that a model or a server wrote is only ever text.

/** An element. `traits` are properties, or attributes where the name holds a dash or is in ATTRIBUTES; children are nodes or texts. */
export function h(tag, traits = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || ATTRIBUTES.has(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
const ATTRIBUTES = new Set(["role", "for", "list", "class"]);

let made = 0;
/** An id that no other element has. */
export const freshId = (stem) => `${stem}-${++made}`;

/** A label above its control. */
export function field(text, control, note) {
  control.id ||= freshId("field");
  const told = note ? h("small", { id: `${control.id}-note` }, note) : null;
  if (told) control.setAttribute("aria-describedby", told.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, text), control, told);
}

/** Tabs with their panels, by arrow keys too (ARIA authoring practices, "tabs"). `parts` is [[title, node], ...]. */
export function tabs(label, parts, chosen = 0, onchange = () => {}) {
  const panels = parts.map(([, node]) => h("div", { role: "tabpanel", id: freshId("panel"), class: "panel" }, node));
  const buttons = parts.map(([title], place) => {
    const button = h("button", {
      type: "button", role: "tab", id: freshId("tab"), "aria-controls": panels[place].id,
      onclick: () => choose(place),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const next = (place + step + parts.length) % parts.length;
        choose(next);
        buttons[next].focus();
      },
    }, title);
    panels[place].setAttribute("aria-labelledby", button.id);
    return button;
  });
  function choose(place, quietly = false) {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", String(index === place));
      button.tabIndex = index === place ? 0 : -1;
      panels[index].hidden = index !== place;
    });
    if (!quietly) onchange(place);
  }
  choose(chosen, true);
  return h("div", { class: "tabs" }, h("div", { role: "tablist", "aria-label": label }, buttons), panels);
}

/** Milliseconds in words. */
export function duration(milliseconds) {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
}
