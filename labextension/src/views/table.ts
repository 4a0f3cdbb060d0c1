/** Table: the numbers of a view as rows, the same that `to_dataframe()` gives in Python, written as CSV. */

import type { AttentionView, Axis, Grid } from '../generated/protocol';
import type { Header } from './frame';
import { firstOf, isLater, numbersOf } from './numbers';

type Value = string | number | null;
type Row = Value[];

const PAUSE = 16; // ms of work, after which the page has its turn

/** Comma-separated, with a line of names; of a large picture in parts, so that the page does not stand still. */
export async function csvOf(header: Header, buffers: DataView[]): Promise<Blob> {
  const parts: string[] = [];
  let since = performance.now();
  for (const row of rowsOf(header, buffers)) {
    parts.push(line(row));
    if (performance.now() - since > PAUSE) {
      await new Promise(resolve => window.setTimeout(resolve));
      since = performance.now();
    }
  }
  return new Blob(parts, { type: 'text/csv' });
}

/** What each head does in numbers. */
export function scoresOf(header: Header): string {
  const rows: Row[] = [['layer', 'head', 'entropy', 'previous', 'first', 'itself', 'induction']];
  if (header.kind === 'attention') {
    const { layer } = header;
    rows.push(...header.scores.map(each => [layer, each.head, each.entropy, each.previous, each.first, each.itself, each.induction]));
  }
  return rows.map(line).join('');
}

function rowsOf(header: Header, buffers: DataView[]): Iterable<Row> {
  switch (header.kind) {
    case 'array':
      return header.grid ? plain(header.grid, buffers) : [];
    case 'residual': {
      const { norms, lens } = header;
      const p = lens ? numbersOf(lens, buffers) : null;
      return cells(norms, buffers, ['norm', ...(lens ? ['top', 'p'] : [])], at => (lens && p ? [lens.texts[at], p[at]] : []));
    }
    case 'gradient': {
      const { norms, product } = header;
      const products = product ? numbersOf(product, buffers) : null;
      return cells(norms, buffers, ['norm', ...(product ? ['product'] : [])], at => (products ? [products[at]] : []));
    }
    case 'mlp':
      return cells(header.grid, buffers, ['activation']);
    case 'attention':
      return pairs(header, buffers);
    case 'logits':
      return [
        ['position', 'at', 'token', 'id', 'before', 'before_rank', 'after', 'after_rank', 'kl'],
        ...header.at.flatMap(at =>
          at.top.map(each => [
            at.position, header.tokens[at.position] ?? '', each.token, each.id, each.before, each.before_rank,
            each.after, each.after_rank, at.kl
          ])
        )
      ];
  }
}

/** A line for each row of a picture. */
function* plain(grid: Grid, buffers: DataView[]): Generator<Row> {
  const numbers = numbersOf(grid, buffers);
  const wide = grid.columns.size;
  yield [grid.rows.name, ...Array.from({ length: wide }, (_, column) => named(grid.columns, column))];
  for (let row = 0; row < grid.rows.size; row += 1) {
    yield [named(grid.rows, row), ...numbers.subarray(row * wide, (row + 1) * wide)];
  }
}

/** A line for each cell of a picture of positions, with more that is known of it. */
function* cells(grid: Grid, buffers: DataView[], names: string[], more: (at: number) => Row = () => []): Generator<Row> {
  const numbers = numbersOf(grid, buffers);
  const wide = grid.columns.size;
  yield [grid.rows.name, 'position', 'token', ...names];
  for (let at = 0; at < wide * grid.rows.size; at += 1) {
    const column = at % wide;
    const place = [named(grid.rows, Math.floor(at / wide)), firstOf(grid.columns, column), grid.columns.labels[column] ?? ''];
    yield [...place, numbers[at], ...more(at)];
  }
}

/** A line for each pair of tokens of each head that is here. */
function* pairs({ layer, heads, pattern }: AttentionView, buffers: DataView[]): Generator<Row> {
  const numbers = numbersOf(pattern, buffers);
  const { rows, columns } = pattern;
  const [down, across] = [rows.labels.length > 0, columns.labels.length > 0];
  const of = (axis: Axis, cell: number, named: boolean) => [firstOf(axis, cell), ...(named ? [axis.labels[cell]] : [])];
  const names = ['query', ...(down ? ['query_token'] : []), 'key', ...(across ? ['key_token'] : [])];
  yield [...(layer === null ? [] : ['layer']), 'head', ...names, 'attention'];
  for (let at = 0; at < numbers.length; at += 1) {
    const [column, row] = [at % columns.size, Math.floor(at / columns.size) % rows.size];
    if (!isLater(pattern, row, column)) {
      const head = heads[Math.floor(at / columns.size / rows.size)];
      yield [...(layer === null ? [] : [layer]), head, ...of(rows, row, down), ...of(columns, column, across), numbers[at]];
    }
  }
}

const named = (axis: Axis, cell: number): string => axis.labels[cell] ?? `${firstOf(axis, cell)}`;

const line = (row: Row): string => `${row.map(quoted).join(',')}\r\n`;

function quoted(value: Value): string {
  const text = value === null ? '' : `${value}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
