// A picture for a model: drawn, chosen, dropped, or a character that is typed. What the model is given is shown.

import { field, freshId, h } from "./dom.js";

const BOARD = 280; // pixels that the board has at least on its longer side

/** The form of a picture. `changed` is called when it has another one, `settled` when that is to be asked about. */
export function pictureForm(spec, { changed, settled }) {
  const grey = spec.channels === 1;
  const scale = Math.max(1, Math.ceil(BOARD / Math.max(spec.width, spec.height)));
  const [paper, ink] = grey ? ["#000", "#fff"] : ["#fff", "#111"];
  const board = h("canvas", { class: "board", width: spec.width * scale, height: spec.height * scale, role: "img" });
  const drawing = board.getContext("2d", { willReadFrequently: true });
  const preview = h("canvas", { class: "preview", width: spec.width, height: spec.height, role: "img", "aria-label": "The picture as the model is given it" });
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  const invert = h("input", { type: "checkbox", id: freshId("invert"), onchange: () => finish() });
  const file = h("input", { type: "file", accept: "image/*", id: freshId("file"), class: "unseen", onchange: () => file.files[0] && take(file.files[0]) });
  const typed = h("input", { type: "text", maxLength: 2, size: 3, autocomplete: "off", spellcheck: false, oninput: () => type(typed.value) });
  let pixels = new Uint8ClampedArray(0);

  function wipe(what) {
    drawing.fillStyle = paper;
    drawing.fillRect(0, 0, board.width, board.height);
    board.setAttribute("aria-label", what);
    trouble.hidden = true;
  }

  function clear() {
    wipe(`An empty board of ${spec.width} by ${spec.height} pixels to draw on. Without a pointer: type a character, or choose a picture.`);
    typed.value = "";
    file.value = "";
    show();
  }

  function type(text) {
    if (!text) return empty();
    wipe(`The text ${text}`);
    const size = board.height * 0.72;
    drawing.fillStyle = ink;
    drawing.textAlign = "center";
    drawing.textBaseline = "alphabetic";
    drawing.font = `600 ${size}px "Segoe UI", "DejaVu Sans", system-ui, sans-serif`;
    const box = drawing.measureText(text);
    const middle = board.height / 2 + (box.actualBoundingBoxAscent - box.actualBoundingBoxDescent) / 2;
    drawing.fillText(text, board.width / 2, middle, board.width * 0.9);
    finish();
  }

  async function take(blob) {
    let picture;
    try {
      picture = await createImageBitmap(blob);
    } catch {
      trouble.textContent = `The browser can’t read ${blob.name ? `“${blob.name}”` : "this"} as a picture. PNG, JPEG, WebP and GIF work everywhere.`;
      trouble.hidden = false;
      return;
    }
    wipe(`The picture ${blob.name ?? ""}`);
    typed.value = "";
    const fit = Math.min(board.width / picture.width, board.height / picture.height);
    const [width, height] = [picture.width * fit, picture.height * fit];
    drawing.imageSmoothingQuality = "high";
    drawing.drawImage(picture, (board.width - width) / 2, (board.height - height) / 2, width, height);
    picture.close();
    finish();
  }

  /** The board's blocks of scale x scale pixels, averaged: the same numbers in every browser. */
  function show() {
    pixels = shrunk(drawing.getImageData(0, 0, board.width, board.height).data, spec, scale, grey, invert.checked);
    const image = new ImageData(spec.width, spec.height);
    for (let place = 0; place < spec.width * spec.height; place++) {
      for (let channel = 0; channel < 3; channel++) image.data[4 * place + channel] = pixels[place * spec.channels + (grey ? 0 : channel)];
      image.data[4 * place + 3] = 255;
    }
    preview.getContext("2d").putImageData(image, 0, 0);
  }

  /** A picture is there, to be asked about. */
  function finish() {
    show();
    changed();
    settled();
  }

  function empty() {
    clear();
    changed();
  }

  pen(board, drawing, { ink, width: board.height / (grey ? 11 : 28), moved: () => board.setAttribute("aria-label", "A drawing"), lifted: () => finish() });
  const drop = h("div", {
    class: "stage",
    ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); },
    ondragleave: () => drop.classList.remove("over"),
    ondrop: (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
    },
  }, board, h("figure", {}, preview, h("figcaption", {}, "As sent")));
  const node = h("div", { class: "picture" },
    h("p", { class: "quiet" }, "Draw on the board, drop a picture on it, or use the controls below."),
    drop, trouble,
    h("div", { class: "controls" },
      h("span", { class: "file" }, file, h("label", { for: file.id, class: "button" }, "Choose a picture")),
      field("Type a character", typed),
      h("label", { class: "check", for: invert.id }, invert, "Invert"),
      h("button", { type: "button", class: "plain", onclick: empty }, "Clear"),
    ),
    h("p", { class: "quiet small" }, told(spec)),
  );
  clear();
  return { node, inputs: () => [tensor(spec, pixels)], bytes: () => ({ [spec.name]: ordered(spec, pixels) }) };
}

/** What is sent, in words. */
function told({ datatype, shape, channels, free, width, height }) {
  const colours = channels === 1 ? "grey" : "red, green, blue";
  const range = datatype === "UINT8" ? "0 (black) to 255 (white)" : "0 (black) to 1 (white)";
  const any = free ? ` The model takes any size; ${width} × ${height} is sent.` : "";
  return `Sent as ${datatype} [${shape.join(", ")}]: ${colours}, from ${range}.${any}`;
}

function pen(board, drawing, { ink, width, moved, lifted }) {
  let last = null;
  const place = (event) => {
    const box = board.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * board.width, ((event.clientY - box.top) / box.height) * board.height];
  };
  const line = (to) => {
    drawing.strokeStyle = ink;
    drawing.lineWidth = width;
    drawing.lineCap = drawing.lineJoin = "round";
    drawing.beginPath();
    drawing.moveTo(...last);
    drawing.lineTo(...to);
    drawing.stroke();
    last = to;
  };
  board.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    board.setPointerCapture(event.pointerId);
    last = place(event);
    line(last);
    moved();
  });
  board.addEventListener("pointermove", (event) => last && (event.getCoalescedEvents?.() ?? [event]).concat(event).forEach((one) => line(place(one))));
  const end = () => {
    if (!last) return;
    last = null;
    lifted();
  };
  board.addEventListener("pointerup", end);
  board.addEventListener("pointercancel", end);
}

/** Pixels row by row, channels last. */
function shrunk(data, { width, height, channels }, scale, grey, inverted) {
  const pixels = new Uint8ClampedArray(width * height * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const sum = [0, 0, 0];
      for (let row = 0; row < scale; row++) {
        let at = 4 * ((y * scale + row) * width * scale + x * scale);
        for (let column = 0; column < scale; column++, at += 4) for (let channel = 0; channel < 3; channel++) sum[channel] += data[at + channel];
      }
      const [r, g, b] = sum.map((value) => value / (scale * scale));
      const values = grey ? [0.299 * r + 0.587 * g + 0.114 * b] : [r, g, b]; // ITU-R BT.601, as Pillow's "L"
      values.forEach((value, channel) => { pixels[(y * width + x) * channels + channel] = inverted ? 255 - value : value; });
    }
  }
  return pixels;
}

/** The pixels in the order of the tensor. */
function ordered({ width, height, channels, channelsFirst }, pixels) {
  if (!channelsFirst || channels === 1) return pixels;
  const area = width * height;
  return pixels.map((_, place) => pixels[(place % area) * channels + Math.floor(place / area)]);
}

// nine digits tell a 32-bit number exactly
const PARTS = Array.from({ length: 256 }, (_, value) => Number((value / 255).toPrecision(9)));

function tensor(spec, pixels) {
  const bytes = Array.from(ordered(spec, pixels));
  const data = spec.datatype === "UINT8" ? bytes : bytes.map((value) => PARTS[value]);
  return { name: spec.name, datatype: spec.datatype, shape: spec.shape, data };
}
