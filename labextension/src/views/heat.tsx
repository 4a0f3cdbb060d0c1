/**
 * Heat: a table of numbers as cells of colour, with its labels, what is under the pointer, and a legend.
 *
 * The canvas holds the cells alone, one pixel a cell, stretched by CSS; words in cells, marks and the pin lie over it.
 */

import { useEffect, useMemo, useRef, useState } from 'react';
import type { KeyboardEvent, PointerEvent, ReactNode } from 'react';
import type { Grid } from '../generated/protocol';
import { colour, ink, isDark, paintAll, palette, rgb } from './colours';
import type { Palette } from './colours';
import { brief, exact, isLater, placeOf, seen, wordOf } from './numbers';

export interface Cell {
  row: number;
  column: number;
}

interface Props {
  grid: Grid;
  /** One sheet. */
  numbers: Float32Array;
  label: string;
  /** Cells that are marked: the selection, or what was clicked. */
  pinned?: Partial<Cell> | null;
  pin?(cell: Cell): void;
  hover?(cell: Cell | null): void;
  /** More on a cell, after its number. */
  more?(cell: Cell): string;
  square?: boolean;
  children?: ReactNode;
}

const ROW = 20; // px of a row, as long as there are few
const TALL = 420; // px that many rows share
const SIDE = 28; // px of a cell of a square picture, as long as there are few
const LINE = 13; // px of a line of labels
const LETTER = 7; // px of a letter in a cell
const TIGHT = 64; // px of a column of words, below which the picture is scrolled
const MANY = 64; // columns that all have their label
const SPARE = 4; // columns that have their words though they are out of sight

/** Columns from, to. */
type Span = [number, number];

export function Heat(props: Props) {
  const { grid, numbers, label, pinned, pin, hover, more, square } = props;
  const { rows, columns } = grid;
  const host = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const [under, setUnder] = useState<Cell | null>(null);
  const colours = useTheme(host);
  const texts = grid.texts.length > 0;
  const span = useSpan(scroller, columns.size, texts);

  useEffect(() => {
    if (canvas.current && colours) {
      paint(canvas.current, grid, numbers, colours);
    }
  }, [grid, numbers, colours]);

  const side = Math.min(TALL, Math.max(96, SIDE * Math.max(rows.size, columns.size)));
  const height = square ? side : rows.size <= 24 ? ROW * rows.size : Math.min(TALL, Math.max(240, rows.size));
  const word = useMemo(() => Math.min(112, Math.max(44, 8 + LETTER * longest(grid.texts))), [grid.texts]);
  const width = square ? `${side}px` : texts ? `max(100%, ${columns.size * Math.min(word, TIGHT)}px)` : '100%';
  const limit = texts ? columns.size * Math.max(88, word) : columns.size <= 12 && !square ? columns.size * 72 : undefined;

  const cellAt = (event: PointerEvent): Cell => {
    const box = event.currentTarget.getBoundingClientRect();
    const clamp = (at: number, size: number) => Math.min(size - 1, Math.max(0, Math.floor(at * size)));
    return {
      row: clamp((event.clientY - box.top) / box.height, rows.size),
      column: clamp((event.clientX - box.left) / box.width, columns.size)
    };
  };
  const point = (cell: Cell | null) => {
    setUnder(cell);
    hover?.(cell);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const from = under ?? { row: pinned?.row ?? 0, column: pinned?.column ?? 0 };
    if (step) {
      const row = Math.max(0, Math.min(rows.size - 1, from.row + step[0]));
      const column = Math.max(0, Math.min(columns.size - 1, from.column + step[1]));
      point({ row, column });
    } else if ((event.key === 'Enter' || event.key === ' ') && pin) {
      pin(from);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const told = under ?? (pinned?.row !== undefined && pinned.column !== undefined ? (pinned as Cell) : null);
  return (
    <div className="wb-heat" ref={host}>
      <Labels axis={grid.rows} height={height} at={told?.row ?? pinned?.row} />
      <div className="wb-cells" ref={scroller} tabIndex={texts ? 0 : undefined}>
        <div className="wb-plot" style={{ height, width, maxWidth: limit }}>
          <canvas
            ref={canvas}
            className={pin ? 'wb-pointed' : undefined}
            role="img"
            tabIndex={0}
            aria-label={`${label}, ${rows.size} by ${columns.size}`}
            width={columns.size}
            height={rows.size}
            onPointerMove={event => point(cellAt(event))}
            onPointerLeave={() => point(null)}
            onClick={event => pin?.(cellAt(event as unknown as PointerEvent))}
            onKeyDown={onKeyDown}
            onBlur={() => point(null)}
          />
          {span && colours && <Words grid={grid} numbers={numbers} colours={colours} span={span} />}
          <Mark grid={grid} cell={pinned ?? null} kind="wb-pin" />
          <Mark grid={grid} cell={under} kind="wb-under" />
          {props.children}
        </div>
        <ColumnLabels grid={grid} width={width} limit={limit} room={square ? side / columns.size : null} span={span} at={told?.column ?? pinned?.column} />
      </div>
      {colours && <Legend grid={grid} colours={colours} />}
      <p className="wb-readout" role="status">
        {told ? `${reading(grid, numbers, told)}${more ? ` ${more(told)}` : ''}` : ''}
      </p>
    </div>
  );
}

/** A cell in words: where it is, and its number, all of it. */
export function reading(grid: Grid, numbers: Float32Array, { row, column }: Cell): string {
  const value = numbers[row * grid.columns.size + column];
  const places = [grid.rows.name && placeOf(grid.rows, row), grid.columns.name && placeOf(grid.columns, column)];
  const many = grid.rows.step * grid.columns.step > 1 ? ` (${grid.merged === 'mean' ? 'mean' : 'largest'})` : '';
  const word = grid.texts[row * grid.columns.size + column];
  const number = isLater(grid, row, column) ? 'comes later: not seen' : `${exact(value)}${many}`;
  return [...places.filter(Boolean), word === undefined ? '' : seen(word), number].filter(Boolean).join(' · ');
}

/** Each word beside the middle of its row; of many rows, as many words as there is room for. */
function Labels({ axis, height, at }: { axis: Grid['rows']; height: number; at: number | undefined }) {
  const words = useMemo(() => wordsOf(axis), [axis]);
  const every = Math.ceil((LINE * axis.size) / height);
  if (!axis.name) {
    return null;
  }
  return (
    <div className="wb-rowlabels" aria-hidden style={{ height }}>
      {words.map((word, row) =>
        row % every === 0 || row === at ? (
          <span key={row} className={row === at ? 'wb-here' : undefined} style={{ top: (height * (row + 0.5)) / axis.size }}>
            {word}
          </span>
        ) : null
      )}
      <span className="wb-widest">{words.reduce((a, b) => (b.length > a.length ? b : a), '')}</span>
    </div>
  );
}

interface Columns {
  grid: Grid;
  width: string;
  limit: number | undefined;
  /** px of a column, where that is known. */
  room: number | null;
  /** Columns in sight, where the picture is scrolled. */
  span: Span | null;
  at?: number;
}

function ColumnLabels({ grid, width, limit, room, span, at }: Columns) {
  const words = useMemo(() => wordsOf(grid.columns), [grid.columns]);
  if (!grid.columns.labels.length && !grid.columns.name) {
    return null;
  }
  if (!grid.columns.labels.length || (words.length > MANY && !span)) {
    return <div className="wb-axis">{`${grid.columns.name} ${grid.columns.start}–${endOf(grid.columns)} →`}</div>;
  }
  const upright = room === null ? words.length > 12 && !grid.texts.length : LETTER * longest(words) > room;
  const [from, to] = span ?? [0, words.length];
  const share = (columns: number) => `${(100 * columns) / words.length}%`;
  return (
    <div className={`wb-columnlabels${upright ? ' wb-upright' : ''}`} style={{ width, maxWidth: limit }} aria-hidden>
      {from > 0 && <span style={{ flex: `0 0 ${share(from)}` }} />}
      {words.slice(from, to).map((word, index) => (
        <span key={from + index} className={from + index === at ? 'wb-here' : undefined} title={word}>
          {word}
        </span>
      ))}
      {to < words.length && <span style={{ flex: `0 0 ${share(words.length - to)}` }} />}
    </div>
  );
}

/** The columns that are in sight of a picture that is wider than its place, with some on either side. */
function useSpan(host: { current: HTMLElement | null }, columns: number, on: boolean): Span | null {
  const [span, setSpan] = useState<Span>([0, Math.min(columns, MANY)]);
  useEffect(() => {
    const element = host.current;
    if (!element || !on) {
      return;
    }
    const look = () => {
      const wide = element.scrollWidth / columns || 1;
      const from = Math.max(0, Math.floor(element.scrollLeft / wide) - SPARE);
      const to = Math.min(columns, Math.ceil((element.scrollLeft + element.clientWidth) / wide) + SPARE);
      setSpan(last => (last[0] === from && last[1] === to ? last : [from, to]));
    };
    look();
    const watcher = new ResizeObserver(look);
    watcher.observe(element);
    element.addEventListener('scroll', look, { passive: true });
    return () => {
      watcher.disconnect();
      element.removeEventListener('scroll', look);
    };
  }, [columns, on]);
  return on ? [Math.min(span[0], columns), Math.min(span[1], columns)] : null;
}

const endOf = (axis: Grid['rows']): number => Math.min(axis.length, axis.start + axis.size * axis.step) - 1;

/** A word for each cell of an axis. */
const wordsOf = (axis: Grid['rows']): string[] =>
  Array.from({ length: axis.size }, (_, cell) =>
    axis.labels.length ? wordOf(axis, cell) : `${axis.start + cell * axis.step}`
  );

const longest = (words: string[]): number => words.reduce((most, word) => Math.max(most, word.length), 0);

/** A frame about a cell, or along a whole row or column where only one of both is known. */
function Mark({ grid, cell, kind }: { grid: Grid; cell: Partial<Cell> | null; kind: string }) {
  if (!cell || (cell.row === undefined && cell.column === undefined)) {
    return null;
  }
  const { row, column } = cell;
  if ((row ?? 0) >= grid.rows.size || (column ?? 0) >= grid.columns.size || (row ?? 0) < 0 || (column ?? 0) < 0) {
    return null;
  }
  const tall = 100 / grid.rows.size;
  const wide = 100 / grid.columns.size;
  return (
    <i
      className={kind}
      style={{
        top: row === undefined ? 0 : `${row * tall}%`,
        height: row === undefined ? '100%' : `${tall}%`,
        left: column === undefined ? 0 : `${column * wide}%`,
        width: column === undefined ? '100%' : `${wide}%`
      }}
    />
  );
}

function Words({ grid, numbers, colours, span: [from, to] }: { grid: Grid; numbers: Float32Array; colours: Palette; span: Span }) {
  const { rows, columns, limit, scale, texts } = grid;
  const share = (part: number) => `${(100 * part) / columns.size}%`;
  const cells = Array.from({ length: rows.size * (to - from) }, (_, at) => {
    const row = Math.floor(at / (to - from));
    return row * columns.size + from + (at % (to - from));
  });
  return (
    <div
      className="wb-inside"
      aria-hidden
      style={{
        gridTemplate: `repeat(${rows.size}, 1fr) / repeat(${to - from}, minmax(0, 1fr))`,
        left: share(from),
        right: share(columns.size - to)
      }}
    >
      {cells.map(index => (
        <span key={index} style={{ color: ink(colour(numbers[index], limit, scale, colours)) }}>
          {seen(texts[index])}
        </span>
      ))}
    </div>
  );
}

export function Legend({ grid, colours }: { grid: Grid; colours: Palette }) {
  const { limit, scale, clipped, nan, infinite, unit } = grid;
  const { under, over, missing, infinite: endless, later } = colours;
  const beyond = scale === 'diverging' ? [under, over] : [under];
  const outside: [string, number, string, number[]][] = [
    ['clipped', clipped, 'beyond the ends of the scale', beyond],
    ['NaN', nan, 'not a number', [missing]],
    ['Inf', infinite, 'infinite', [endless]]
  ];
  return (
    <div className="wb-legend">
      <span>{scale === 'diverging' ? brief(-limit) : '0'}</span>
      <i style={{ background: colours.css[scale] }} />
      <span>
        {scale === 'diverging' ? `+${brief(limit)}` : brief(limit)}
        {unit ? ` ${unit}` : ''}
      </span>
      {outside
        .filter(([, count]) => count > 0)
        .map(([name, count, words, marks]) => (
          <span key={name} className="wb-outside" title={words}>
            {marks.map(mark => (
              <i key={mark} style={{ background: rgb(mark) }} />
            ))}
            {count.toLocaleString('en')} {name}
          </span>
        ))}
      {isLater(grid, 0, 1) && (
        <span className="wb-later" title="a token sees none that comes after it">
          <i style={{ background: rgb(later) }} />
          later
        </span>
      )}
    </div>
  );
}

/** One pixel a cell; what is right of the diagonal has a colour of its own where it does not exist. */
export function paint(canvas: HTMLCanvasElement, grid: Grid, numbers: Float32Array, colours: Palette): void {
  const context = canvas.getContext('2d');
  if (!context) {
    return;
  }
  const wide = grid.columns.size;
  const image = context.createImageData(wide, grid.rows.size);
  const pixels = new Uint32Array(image.data.buffer);
  paintAll(numbers, pixels, grid.limit, grid.scale, colours);
  if (isLater(grid, 0, 1)) {
    for (let row = 0; row < grid.rows.size; row += 1) {
      pixels.fill(colours.later, Math.min(wide, row + 1) + row * wide, (row + 1) * wide);
    }
  }
  context.putImageData(image, 0, 0);
}

/** The palette for what stands behind an element, found again when the page's theme changes. */
export function useTheme(host: { current: Element | null }): Palette | null {
  const [colours, setColours] = useState<Palette | null>(null);
  useEffect(() => {
    const look = () => setColours(palette(isDark(host.current)));
    look();
    const later = () => window.setTimeout(look, 250); // the style sheet of a theme comes after its name
    const watcher = new MutationObserver(() => {
      look();
      later();
    });
    for (const each of [document.documentElement, document.body]) {
      watcher.observe(each, { attributes: true, attributeFilter: ['class', 'data-jp-theme-light', 'data-jp-theme-name', 'data-theme'] });
    }
    return () => watcher.disconnect();
  }, []);
  return colours;
}
