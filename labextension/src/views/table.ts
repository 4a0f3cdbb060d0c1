/** Table: the numbers of a view as rows, the same that `to_dataframe()` gives in Python, written as CSV. */

import type { Axis, Grid } from '../generated/protocol';
import type { Header } from './frame';
import { numbersOf } from './numbers';

type Value = string | number | null;

/** Comma-separated, with a line of names. */
export function csvOf(header: Header, buffers: DataView[]): string {
  return rowsOf(header, buffers).map(row => row.map(quoted).join(',')).join('\r\n') + '\r\n';
}

function rowsOf(header: Header, buffers: DataView[]): Value[][] {
  switch (header.kind) {
    case 'array':
      return header.grid ? plain(header.grid, buffers) : [];
    case 'residual': {
      const { norms, lens } = header;
      const names = ['layer', 'position', 'token', 'norm', ...(lens ? ['top', 'p'] : [])];
      const p = lens ? numbersOf(lens, buffers) : null;
      return [names, ...cells(norms, buffers).map(([row, column, norm, at]) => [
        named(norms.rows, row), column, norms.columns.labels[column] ?? '', norm, ...(lens && p ? [lens.texts[at], p[at]] : [])
      ])];
    }
    case 'gradient': {
      const { norms, product } = header;
      const products = product ? numbersOf(product, buffers) : null;
      const names = ['layer', 'position', 'token', 'norm', ...(product ? ['product'] : [])];
      return [names, ...cells(norms, buffers).map(([row, column, norm, at]) => [
        named(norms.rows, row), column, norms.columns.labels[column] ?? '', norm, ...(products ? [products[at]] : [])
      ])];
    }
    case 'attention':
      return [
        ['layer', 'head', 'entropy', 'previous', 'first', 'itself', 'induction'],
        ...header.scores.map(each => [
          header.layer, each.head, each.entropy, each.previous, each.first, each.itself, each.induction
        ])
      ];
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
    case 'mlp':
      return [
        ['neuron', 'position', 'token', 'activation'],
        ...cells(header.grid, buffers).map(([row, column, value]) => [
          header.neurons[row], column, header.grid.columns.labels[column] ?? '', value
        ])
      ];
  }
}

function plain(grid: Grid, buffers: DataView[]): Value[][] {
  const numbers = numbersOf(grid, buffers);
  const wide = grid.columns.size;
  const names = Array.from({ length: wide }, (_, column) => named(grid.columns, column));
  const lines = Array.from({ length: grid.rows.size }, (_, row) => [
    named(grid.rows, row), ...numbers.subarray(row * wide, (row + 1) * wide)
  ]);
  return [[grid.rows.name, ...names], ...lines];
}

function cells(grid: Grid, buffers: DataView[]): [number, number, number, number][] {
  const wide = grid.columns.size;
  return Array.from(numbersOf(grid, buffers).subarray(0, grid.rows.size * wide), (value, at) => [
    Math.floor(at / wide), at % wide, value, at
  ]);
}

const named = (axis: Axis, cell: number): string => axis.labels[cell] ?? `${axis.start + cell * axis.step}`;

function quoted(value: Value): string {
  const text = value === null ? '' : `${value}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
