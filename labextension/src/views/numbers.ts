/** The numbers of a view: read from the bytes beside its header, and written for people. */

import type { Axis, Grid, LogitsView } from '../generated/protocol';

/** A grid's numbers, row-major, sheet after sheet. */
export function numbersOf(grid: Grid, buffers: DataView[]): Float32Array {
  const bytes = buffers[grid.buffer];
  const count = grid.sheets * grid.rows.size * grid.columns.size;
  if (grid.dtype === 'float32' && bytes.byteOffset % 4 === 0) {
    return new Float32Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, count);
  }
  const numbers = new Float32Array(count);
  for (let index = 0; index < count; index += 1) {
    numbers[index] = grid.dtype === 'float32' ? bytes.getFloat32(4 * index, true) : half(bytes.getUint16(2 * index, true));
  }
  return numbers;
}

/** One sheet of a grid's numbers. */
export const sheetOf = (grid: Grid, numbers: Float32Array, sheet: number): Float32Array => {
  const size = grid.rows.size * grid.columns.size;
  return numbers.subarray(sheet * size, (sheet + 1) * size);
};

/** A number of 16 bits, as IEEE 754 has it. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) {
    return fraction ? NaN : sign * Infinity;
  }
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
}

/** Whether a cell of a causal pattern does not exist: its key comes later than its query. */
export const isLater = (grid: Grid, row: number, column: number): boolean =>
  grid.causal && column > row && grid.rows.length === grid.columns.length;

/** A token as it is shown: its spaces and line ends can be seen. */
export const seen = (token: string): string => token.replaceAll(' ', '␣').replaceAll('\n', '⏎').replaceAll('\t', '⇥');

/** All of a number that a float32 has. */
export function exact(value: number): string {
  if (!Number.isFinite(value)) {
    return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '−Inf';
  }
  const text = Number(value.toPrecision(7)).toString();
  return text.replace('-', '−');
}

/** A number in few places, for a legend or a table. */
export function brief(value: number): string {
  const size = Math.abs(value);
  const text = size >= 1e5 || (size > 0 && size < 1e-3) ? value.toExponential(1) : Number(value.toPrecision(3)).toString();
  return text.replace('-', '−');
}

/** A probability: three places, or its size where these would all be zero. */
export const chance = (value: number | null): string =>
  value === null ? '–' : value >= 5e-4 || value === 0 ? value.toFixed(3) : value.toExponential(0).replace('-', '−');

/** After which token of a prompt, how far from before, and how unsure: a line under next tokens. */
export function summaryOf({ position, kl, entropy }: LogitsView['at'][number], token: string | undefined): string {
  const parts = [
    token === undefined ? (position ? `after position ${position}` : '') : `after position ${position} ${seen(token)}`,
    kl === null ? '' : `KL ${brief(kl)} nats`,
    `entropy ${brief(entropy)} nats`
  ];
  return parts.filter(Boolean).join(' · ');
}

/** In which cell a number of the axis is; undefined if in none that is drawn. */
export function cellOf({ start, step, size }: Axis, at: number | null | undefined): number | undefined {
  const cell = at === null || at === undefined ? -1 : Math.floor((at - start) / step);
  return cell >= 0 && cell < size ? cell : undefined;
}

/** The first number of a cell. */
export const firstOf = ({ start, step }: Axis, cell: number): number => start + cell * step;

/** Axes whose words are tokens; those of others are names. */
const OF_TOKENS = new Set(['position', 'query', 'key']);

/** A cell's word: a token with its spaces to be seen, or a name as it is. */
export const wordOf = (axis: Axis, cell: number): string =>
  OF_TOKENS.has(axis.name) ? seen(axis.labels[cell] ?? '') : (axis.labels[cell] ?? '');

/** What a cell is along one side: `position 7 ␣of`, `feature 12–15`. */
export function placeOf(axis: Axis, cell: number): string {
  const from = axis.start + cell * axis.step;
  const to = Math.min(from + axis.step, axis.length) - 1;
  const label = axis.labels[cell];
  if (axis.name === 'layer' || axis.name === 'neuron') {
    return axis.name === 'neuron' ? `neuron ${label ?? from}` : (label ?? `layer ${from}`);
  }
  return `${axis.name} ${axis.step > 1 && to > from ? `${from}–${to}` : from}${label === undefined ? '' : ` ${seen(label)}`}`;
}
