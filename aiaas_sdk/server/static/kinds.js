// What kind of form a signature calls for.

const FLOATS = new Set(["FP16", "BF16", "FP32", "FP64"]);
const WHOLE = /^U?INT(8|16|32|64)$/;
const MOST_FIELDS = 64;
const FREE_SIDE = 224; // pixels, where the model takes any size
const LEAST_SIDE = 8; // less is no picture

export const isFloat = (datatype) => FLOATS.has(datatype);
export const isWhole = (datatype) => WHOLE.test(datatype);
const isNumber = (datatype) => isFloat(datatype) || isWhole(datatype);

/** The picture that a model takes, or null: {name, datatype, shape, width, height, channels, channelsFirst}. */
export function pictureOf(inputs) {
  if (inputs.length !== 1) return null;
  const [{ name, datatype, shape }] = inputs;
  if (!isFloat(datatype) && datatype !== "UINT8") return null;
  const found = layout(shape);
  if (!found) return null;
  const sides = [found.height, found.width];
  if (sides.some((side) => side !== -1 && (side < LEAST_SIDE || side > 4096))) return null;
  // a grey picture without a channel axis could be a sequence: only one that is about square counts
  if (shape.length < 4 && found.channels === 1 && Math.max(...sides) > 2 * Math.min(...sides)) return null;
  const [height, width] = sides.map((side) => (side === -1 ? FREE_SIDE : side));
  const sized = shape.map((size, axis) => (axis === found.rows ? height : axis === found.columns ? width : size === -1 ? 1 : size));
  return { ...found, name, datatype, shape: sized, height, width, free: sides.includes(-1) };
}

function layout(shape) {
  const colours = (size) => size === 1 || size === 3;
  const first = (axis) => ({ channels: shape[axis], channelsFirst: true, rows: axis + 1, columns: axis + 2, height: shape[axis + 1], width: shape[axis + 2] });
  const last = (axis) => ({ channels: shape[axis], channelsFirst: false, rows: axis - 2, columns: axis - 1, height: shape[axis - 2], width: shape[axis - 1] });
  const grey = (axis) => ({ channels: 1, channelsFirst: true, rows: axis, columns: axis + 1, height: shape[axis], width: shape[axis + 1] });
  const one = (size) => size === -1 || size === 1;
  if (shape.length === 4 && one(shape[0])) return colours(shape[1]) ? first(1) : colours(shape[3]) ? last(3) : null;
  if (shape.length === 3) {
    if (colours(shape[2]) && shape[0] !== 1) return last(2);
    if (shape[0] === 3) return first(0);
    return one(shape[0]) && (shape[1] > 0 || shape[2] > 0) ? grey(1) : null;
  }
  return shape.length === 2 && shape[0] >= LEAST_SIDE && shape[1] >= LEAST_SIDE ? grey(0) : null;
}

/** The table row that a model takes, or null: {fields: [{name, datatype}], inputs}; `inputs` makes the tensors of values. */
export function tableOf(inputs, metadata) {
  const scalar = ({ datatype, shape }) => (isNumber(datatype) || datatype === "BOOL" || datatype === "BYTES") && shape.every((size) => size === -1 || size === 1) && shape.length <= 2;
  if (inputs.length === 1 && isNumber(inputs[0].datatype)) return columnsOf(inputs[0], metadata);
  if (!inputs.length || inputs.length > MOST_FIELDS || !inputs.every(scalar)) return null;
  if (inputs.length === 1 && inputs[0].shape.length === 1 && inputs[0].datatype !== "BYTES") return null;
  return {
    fields: inputs.map(({ name, datatype }) => ({ name, datatype })),
    inputs: (values) => inputs.map(({ name, datatype, shape }, place) => ({ name, datatype, shape: shape.map(() => 1), data: [values[place]] })),
  };
}

function columnsOf({ name, datatype, shape }, metadata) {
  const count = shape.at(-1);
  const row = shape.length === 2 && (shape[0] === -1 || shape[0] === 1);
  if (!(row || shape.length === 1) || !(count >= 1 && count <= MOST_FIELDS)) return null;
  const names = columnNames(metadata, count);
  return {
    fields: Array.from({ length: count }, (_, place) => ({ name: names?.[place] ?? (count === 1 ? name : `${name} ${place + 1}`), datatype })),
    inputs: (values) => [{ name, datatype, shape: row ? [1, count] : [count], data: values }],
  };
}

const NAMES = ["columns", "features", "feature_names", "fields", "input_names"];
function columnNames(metadata, count) {
  for (const name of NAMES) {
    const found = metadata?.[name];
    if (Array.isArray(found) && found.length === count) return found.map((entry) => String(entry?.name ?? entry));
  }
  return null;
}

/** Inputs to start from, for the editor. */
export function template(inputs) {
  if (!inputs.length) return [{ name: "input", datatype: "FP32", shape: [1, 3], data: [1, 2, 3] }];
  return inputs.map(({ name, datatype, shape }) => {
    const sized = shape.map((size) => (size === -1 ? 1 : size));
    const count = sized.reduce((product, size) => product * size, 1);
    const value = datatype === "BYTES" ? "text" : datatype === "BOOL" ? true : 0;
    return { name, datatype, shape: sized, data: Array(Math.min(count, 100_000)).fill(value) };
  });
}
