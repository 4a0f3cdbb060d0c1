/** The tree's columns, as rows: what the kernel sends in numbers, by path. */

import type { ShapesReply, TreeReply } from './generated/protocol';

export interface ModuleRow {
  path: string;
  name: string;
  cls: string;
  depth: number;
  children: number;
  parameters: number;
}

export interface Shape {
  input: number[] | null;
  output: number[] | null;
  dtype: string | null;
  why: string | null;
}

export function rowsOf(tree: TreeReply): ModuleRow[] {
  const rows: ModuleRow[] = [];
  tree.names.forEach((name, index) => {
    const parent = tree.parents[index] < 0 ? null : rows[tree.parents[index]];
    const path = parent === null ? '' : parent.path === '' ? name : `${parent.path}.${name}`;
    rows.push({
      path,
      name,
      cls: tree.classes[tree.cls[index]],
      depth: parent === null ? 0 : parent.depth + 1,
      children: 0,
      parameters: tree.parameters[index]
    });
    if (parent) {
      parent.children += 1;
    }
  });
  return rows;
}

export function shapesOf(rows: ModuleRow[], { shapes }: ShapesReply): Record<string, Shape> {
  const found: Record<string, Shape> = {};
  if (shapes) {
    rows.forEach((row, index) => {
      found[row.path] = {
        input: shapes.sizes[shapes.input[index]] ?? null,
        output: shapes.sizes[shapes.output[index]] ?? null,
        dtype: shapes.dtypes[shapes.dtype[index]] ?? null,
        why: shapes.reasons[shapes.why[index]] ?? null
      };
    });
  }
  return found;
}
