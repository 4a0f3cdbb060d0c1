/**
 * A model's modules as columns: where each subtree ends, which siblings repeat, what is in sight, what a search finds.
 *
 * Rows are numbers, in pre-order; paths are put together only for those that are looked at.
 */

import type { Shapes, TreeReply } from './generated/protocol';

/** Numbered siblings of one structure are folded from this many on. */
const REPEATS = 3;
const OPEN_DEPTH = 2;

/** Which rows and folds are open; changed by making another. */
export interface Opened {
  rows: Uint8Array;
  /** By the first row of the fold. */
  folds: Uint8Array;
}

/** One line in sight: a row, or the fold that begins with it, and how deep it is drawn. */
export interface Line {
  row: number;
  fold: boolean;
  level: number;
  /** In a search: it only leads to what was found. */
  leads?: boolean;
}

export class Tree {
  readonly length: number;
  private readonly parents: Int32Array;
  private readonly names: Int32Array;
  private readonly classes: Int32Array;
  private readonly counts: Float64Array;
  /** The row behind the last one below each row. */
  readonly ends: Int32Array;
  readonly depths: Uint16Array;
  readonly children: Int32Array;
  /** For the first row of a fold: the row behind its last sibling; else 0. */
  readonly folds: Int32Array;
  /** For each row of a fold: its first row; else -1. */
  readonly foldOf: Int32Array;
  private lower: { paths: string[]; classes: string[]; standard: Map<number, string> } | null = null;

  constructor(
    private readonly reply: TreeReply,
    [columns, counts]: DataView[]
  ) {
    const length = (this.length = reply.rows);
    const numbers = new Int32Array(copied(columns));
    const column = (at: number) => numbers.subarray(at * length, (at + 1) * length);
    const parents = (this.parents = column(0));
    const names = (this.names = column(1));
    this.classes = column(2);
    const keys = column(3);
    this.counts = new Float64Array(copied(counts));
    this.ends = new Int32Array(length);
    this.depths = new Uint16Array(length);
    this.children = new Int32Array(length);
    this.folds = new Int32Array(length);
    this.foldOf = new Int32Array(length).fill(-1);
    for (let row = 1; row < length; row += 1) {
      this.depths[row] = this.depths[parents[row]] + 1;
      this.children[parents[row]] += 1;
    }
    for (let row = length - 1; row >= 0; row -= 1) {
      this.ends[row] = Math.max(this.ends[row], row + 1);
      if (row > 0) {
        this.ends[parents[row]] = Math.max(this.ends[parents[row]], this.ends[row]);
      }
    }
    const numeral = reply.words.map(word => /^\d+$/.test(word));
    const numbered = (row: number) => numeral[names[row]];
    for (let row = 1; row < length; row += 1) {
      if (this.foldOf[row] >= 0 || !numbered(row)) {
        continue;
      }
      let count = 0;
      let next = row;
      const above = this.ends[parents[row]];
      while (next < above && keys[next] === keys[row] && numbered(next)) {
        count += 1;
        next = this.ends[next];
      }
      if (count >= REPEATS) {
        this.folds[row] = next;
        for (let each = row; each < next; each = this.ends[each]) {
          this.foldOf[each] = row;
        }
      }
    }
  }

  name(row: number): string {
    return row === 0 ? this.reply.name : this.reply.words[this.names[row]];
  }

  cls(row: number): string {
    return this.reply.classes[this.classes[row]];
  }

  parameters(row: number): number {
    return this.counts[row];
  }

  /** Whether the modules are the same, by name and structure. */
  same(other: Tree): boolean {
    return (
      this.length === other.length &&
      this.reply.name === other.reply.name &&
      this.reply.words.length === other.reply.words.length &&
      this.reply.words.every((word, at) => word === other.reply.words[at]) &&
      this.names.every((name, row) => name === other.names[row] && this.parents[row] === other.parents[row])
    );
  }

  /** The path below the model; '' for the model itself. */
  path(row: number): string {
    const parts: string[] = [];
    for (let each = row; each > 0; each = this.parents[each]) {
      parts.push(this.name(each));
    }
    return parts.reverse().join('.');
  }

  standard(row: number): string | undefined {
    return this.reply.standard[row];
  }

  parent(row: number): number {
    return this.parents[row];
  }

  /** The row at a path, or -1. */
  find(path: string): number {
    let row = 0;
    if (path === '') {
      return this.length ? 0 : -1;
    }
    let rest = path;
    while (rest !== '') {
      let found = -1;
      for (let child = row + 1; child < this.ends[row]; child = this.ends[child]) {
        const name = this.name(child);
        if (rest === name || rest.startsWith(`${name}.`)) {
          found = child;
          rest = rest === name ? '' : rest.slice(name.length + 1);
          break;
        }
      }
      if (found < 0) {
        return -1;
      }
      row = found;
    }
    return row;
  }

  /** The siblings that a fold stands for. */
  *repeats(first: number): Generator<number> {
    for (let row = first; row < this.folds[first]; row = this.ends[row]) {
      yield row;
    }
  }

  count(first: number): number {
    let count = 0;
    for (const _ of this.repeats(first)) {
      count += 1;
    }
    return count;
  }

  /** The same place in every repeat around a row: `h.0.mlp … h.31.mlp`; just the row where nothing repeats. */
  everywhere(row: number): number[] {
    for (let above = row; above > 0; above = this.parent(above)) {
      const first = this.foldOf[above];
      if (first >= 0) {
        const offset = row - above; // the structure is the same, so the place is too
        return [...this.repeats(first)].map(each => each + offset);
      }
    }
    return [row];
  }

  /** `transformer.h.*.mlp` for a row in a repeat. */
  pattern(row: number): string {
    const rows = this.everywhere(row);
    if (rows.length === 1) {
      return this.path(row);
    }
    const [a, b] = [this.path(rows[0]).split('.'), this.path(rows[rows.length - 1]).split('.')];
    return a.map((part, index) => (part === b[index] ? part : '*')).join('.');
  }

  /** What is open when a model is first seen. */
  opening(): Opened {
    const rows = new Uint8Array(this.length);
    for (let row = 0; row < this.length; row += 1) {
      rows[row] = this.depths[row] < OPEN_DEPTH ? 1 : 0;
    }
    return { rows, folds: new Uint8Array(this.length) };
  }

  everything(open: boolean): Opened {
    const fill = open ? 1 : 0;
    const rows = new Uint8Array(this.length).fill(fill);
    if (this.length) {
      rows[0] = 1;
    }
    return { rows, folds: new Uint8Array(this.length).fill(fill) };
  }

  /** Open what leads to a row. */
  reveal(opened: Opened, row: number): Opened {
    const next = { rows: opened.rows.slice(), folds: opened.folds.slice() };
    for (let each = row; each > 0; each = this.parent(each)) {
      next.rows[this.parent(each)] = 1;
      if (this.foldOf[each] >= 0) {
        next.folds[this.foldOf[each]] = 1;
      }
    }
    return next;
  }

  /** The lines in sight, top to bottom. */
  lines(opened: Opened): Line[] {
    const found: Line[] = [];
    const visit = (from: number, to: number, level: number) => {
      for (let row = from; row < to; ) {
        const behind = this.folds[row];
        if (behind) {
          found.push({ row, fold: true, level });
          if (opened.folds[row]) {
            for (let each = row; each < behind; each = this.ends[each]) {
              show(each, level + 1);
            }
          }
          row = behind;
        } else {
          show(row, level);
          row = this.ends[row];
        }
      }
    };
    const show = (row: number, level: number) => {
      found.push({ row, fold: false, level });
      if (opened.rows[row] && this.children[row]) {
        visit(row + 1, this.ends[row], level + 1);
      }
    };
    visit(0, this.length, 0);
    return found;
  }

  /** The lines of a search: what matches, and what leads to it. Every word must match. */
  search(query: string, shapes: Shapes | null): Line[] {
    const tests = query.trim().toLowerCase().split(/\s+/).map(word => this.test(word, shapes));
    const keep = new Uint8Array(this.length);
    for (let row = 0; row < this.length; row += 1) {
      if (tests.every(test => test(row))) {
        for (let each = this.parent(row); each >= 0 && !keep[each]; each = this.parent(each)) {
          keep[each] = 1;
        }
        keep[row] = 2;
      }
    }
    const found: Line[] = [];
    for (let row = 0; row < this.length; row += 1) {
      if (keep[row]) {
        found.push({ row, fold: false, level: this.depths[row], leads: keep[row] === 1 });
      }
    }
    return found;
  }

  private test(word: string, shapes: Shapes | null): (row: number) => boolean {
    if (/^[\d*?]+([×x,][\d*?]+)+$/.test(word)) {
      const wanted = word.split(/[×x,]/);
      const fits = (shapes?.sizes ?? []).map(
        size => size.length === wanted.length && wanted.every((each, axis) => each === '*' || glob(each).test(`${size[axis]}`))
      );
      return row => shapes !== null && (fits[shapes.output[row]] || fits[shapes.input[row]] || false);
    }
    const { paths, classes, standard } = this.lowered();
    if (/[*?]/.test(word)) {
      const pattern = glob(word);
      const classFits = classes.map(cls => pattern.test(cls));
      return row =>
        classFits[this.classes[row]] || pattern.test(paths[row]) || pattern.test(standard.get(row) ?? '');
    }
    const classFits = classes.map(cls => cls.includes(word));
    return row => classFits[this.classes[row]] || paths[row].includes(word) || !!standard.get(row)?.includes(word);
  }

  private lowered() {
    if (!this.lower) {
      const paths = new Array<string>(this.length);
      for (let row = 0; row < this.length; row += 1) {
        const above = this.parent(row);
        paths[row] = above < 0 ? '' : above === 0 ? this.name(row).toLowerCase() : `${paths[above]}.${this.name(row).toLowerCase()}`;
      }
      const classes = this.reply.classes.map(cls => cls.toLowerCase());
      const standard = new Map(Object.entries(this.reply.standard).map(([row, name]) => [Number(row), name.toLowerCase()]));
      this.lower = { paths, classes, standard };
    }
    return this.lower;
  }
}

/** Whatever lies beside a message may begin at any byte; a column begins at a whole number. */
const copied = (data: DataView): ArrayBuffer =>
  data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength) as ArrayBuffer;

function glob(pattern: string): RegExp {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`);
}

/** 793k, 1.2M, 405B. */
export function briefly(count: number): string {
  for (const [size, unit] of [[1e9, 'B'], [1e6, 'M'], [1e3, 'k']] as const) {
    if (count >= size) {
      const scaled = count / size;
      return `${scaled < 100 ? scaled.toFixed(1) : scaled.toFixed(0)}${unit}`;
    }
  }
  return `${count}`;
}

const times = (size: number[] | undefined): string => (size ? size.join('×') || 'scalar' : '');

/** What goes in, where it differs, and what comes out, as texts; and the words for a hover. */
export function shapeOf(shapes: Shapes | null, row: number): { into: string; out: string; words: string } {
  if (!shapes || row >= shapes.output.length) {
    return { into: '', out: '', words: '' };
  }
  const before = times(shapes.sizes[shapes.input[row]]);
  const after = times(shapes.sizes[shapes.output[row]]);
  const dtype = shapes.dtypes[shapes.dtype[row]];
  const why = shapes.reasons[shapes.why[row]];
  const words = [
    before === after ? before : `${before || '?'} → ${after || '?'}`,
    dtype ?? '',
    why ? `shape unknown, because: ${why}` : ''
  ].filter(Boolean);
  return {
    into: before && after && before !== after ? before : '',
    out: after || before,
    words: words.join(' · ')
  };
}
