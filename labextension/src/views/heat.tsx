/**
 * Heat: a table of numbers as cells of colour, with its labels, what is under the pointer, and a legend.
 *
 * The canvas holds the cells alone, one pixel a cell, stretched by CSS; words in cells, marks and the pin lie over it.
 */

import { useEffect, useMemo, useRef, useState } from 'react';
import type { KeyboardEvent, PointerEvent, ReactNode } from 'react';
import type { Grid } from '../generated/protocol';
import { colour, ink, isDark, palette, rgb } from './colours';
import type { Palette } from './colours';
import { brief, exact, placeOf, seen } from './numbers';

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
  tall?: number;
  legend?: boolean;
  children?: ReactNode;
}

const ROW = 20;
const TALL = 420; // px that many rows share
const WIDE = 560; // px that a picture of few columns is given

export function Heat(props: Props) {
  const { grid, numbers, label, pinned, pin, hover, more, square, tall = TALL, legend = true } = props;
  const { rows, columns } = grid;
  const host = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [under, setUnder] = useState<Cell | null>(null);
  const colours = useTheme(host);
  const texts = grid.texts.length > 0;

  useEffect(() => {
    if (canvas.current && colours) {
      paint(canvas.current, grid, numbers, colours);
    }
  }, [grid, numbers, colours]);

  const height = square ? undefined : rows.size <= 24 ? ROW * rows.size : Math.min(tall, Math.max(240, rows.size));
  const width = square ? `min(100%, ${WIDE - 160}px)` : texts ? `max(100%, ${columns.size * 44}px)` : '100%';
  const limit = texts ? columns.size * 88 : columns.size <= 12 && !square ? columns.size * 72 : undefined;

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
      <Labels axis={grid.rows} at={told?.row ?? pinned?.row} />
      <div className="wb-cells" tabIndex={texts ? 0 : undefined}>
        <div className="wb-plot" style={{ height, width, maxWidth: limit, aspectRatio: square ? '1' : undefined }}>
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
          {texts && colours && <Words grid={grid} numbers={numbers} colours={colours} />}
          <Mark grid={grid} cell={pinned ?? null} kind="wb-pin" />
          <Mark grid={grid} cell={under} kind="wb-under" />
          {props.children}
        </div>
        <ColumnLabels grid={grid} width={width} limit={limit} at={told?.column ?? pinned?.column} />
      </div>
      <p className="wb-readout" role="status">
        {told ? `${reading(grid, numbers, told)}${more ? ` ${more(told)}` : ''}` : ''}
      </p>
      {legend && colours && <Legend grid={grid} colours={colours} />}
    </div>
  );
}

/** A cell in words: where it is, and its number, all of it. */
export function reading(grid: Grid, numbers: Float32Array, { row, column }: Cell): string {
  const value = numbers[row * grid.columns.size + column];
  const places = [grid.rows.name && placeOf(grid.rows, row), grid.columns.name && placeOf(grid.columns, column)];
  const many = grid.rows.step * grid.columns.step > 1 ? ` (${grid.merged === 'mean' ? 'mean' : 'largest'})` : '';
  const word = grid.texts[row * grid.columns.size + column];
  return [...places.filter(Boolean), word === undefined ? '' : seen(word), `${exact(value)}${many}`].filter(Boolean).join(' · ');
}

function Labels({ axis, at }: { axis: Grid['rows']; at: number | undefined }) {
  const words = useMemo(() => wordsOf(axis), [axis]);
  return (
    <ol className={`wb-rowlabels${words.length > 24 ? ' wb-tight' : ''}`} aria-hidden>
      {words.map((word, index) => (
        <li key={index} className={index === at ? 'wb-here' : undefined}>
          {word}
        </li>
      ))}
    </ol>
  );
}

function ColumnLabels({ grid, width, limit, at }: { grid: Grid; width: string; limit: number | undefined; at?: number }) {
  const words = useMemo(() => wordsOf(grid.columns), [grid.columns]);
  if (!grid.columns.labels.length && !grid.columns.name) {
    return null;
  }
  if (!grid.columns.labels.length || words.length > 64) {
    return <div className="wb-axis">{`${grid.columns.name} ${grid.columns.start}–${endOf(grid.columns)} →`}</div>;
  }
  return (
    <ol
      className={`wb-columnlabels${words.length > 12 && !grid.texts.length ? ' wb-upright' : ''}`}
      style={{ width, maxWidth: limit }}
      aria-hidden
    >
      {words.map((word, index) => (
        <li key={index} className={index === at ? 'wb-here' : undefined} title={word}>
          {word}
        </li>
      ))}
    </ol>
  );
}

const endOf = (axis: Grid['rows']): number => Math.min(axis.length, axis.start + axis.size * axis.step) - 1;

/** At most some sixty words for an axis, each where it belongs; the others are empty. */
function wordsOf(axis: Grid['rows']): string[] {
  const every = Math.ceil(axis.size / 24);
  if (!axis.name) {
    return [];
  }
  return Array.from({ length: axis.size }, (_, cell) => {
    if (axis.labels.length && axis.size <= 64) {
      return seen(axis.labels[cell] ?? '');
    }
    return cell % every === 0 && axis.size <= 512 ? `${axis.start + cell * axis.step}` : '';
  }).filter((word, cell) => axis.size <= 64 || word !== '' || cell % every === 0);
}

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

function Words({ grid, numbers, colours }: { grid: Grid; numbers: Float32Array; colours: Palette }) {
  const { rows, columns, texts, limit, scale } = grid;
  return (
    <div
      className="wb-words"
      aria-hidden
      style={{ gridTemplate: `repeat(${rows.size}, 1fr) / repeat(${columns.size}, 1fr)` }}
    >
      {texts.map((text, index) => (
        <span key={index} style={{ color: ink(colour(numbers[index], limit, scale, colours)) }}>
          {seen(text)}
        </span>
      ))}
    </div>
  );
}

export function Legend({ grid, colours }: { grid: Grid; colours: Palette }) {
  const { limit, scale, clipped, nan, infinite, unit } = grid;
  const outside = [
    clipped ? `${clipped.toLocaleString('en')} clipped` : '',
    nan ? `${nan.toLocaleString('en')} NaN` : '',
    infinite ? `${infinite.toLocaleString('en')} Inf` : ''
  ].filter(Boolean);
  return (
    <div className="wb-legend">
      <span>{scale === 'diverging' ? brief(-limit) : '0'}</span>
      <i style={{ background: colours.css[scale] }} />
      <span>
        {scale === 'diverging' ? `+${brief(limit)}` : brief(limit)}
        {unit ? ` ${unit}` : ''}
      </span>
      {outside.length > 0 && (
        <span className="wb-outside">
          {nan > 0 && <i className="wb-missing" style={{ background: rgb(colours.missing) }} />}
          {outside.join(' · ')}
        </span>
      )}
    </div>
  );
}

/** One pixel a cell; what is right of the diagonal stays clear where it does not exist; Inf is marked by its corner. */
export function paint(canvas: HTMLCanvasElement, grid: Grid, numbers: Float32Array, colours: Palette): void {
  const context = canvas.getContext('2d');
  if (!context) {
    return;
  }
  const wide = grid.columns.size;
  const image = context.createImageData(wide, grid.rows.size);
  const pixels = new Uint32Array(image.data.buffer);
  const square = grid.causal && grid.rows.length === grid.columns.length;
  for (let index = 0; index < pixels.length; index += 1) {
    const column = index % wide;
    const hidden = square && column > (index - column) / wide;
    pixels[index] = hidden ? 0 : colour(numbers[index], grid.limit, grid.scale, colours);
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
