/** Array: any tensor: two axes as a picture that can be moved and enlarged, the others at an index each. */

import { useEffect, useMemo, useRef, useState } from 'react';
import type { ArrayView, Axis, Grid } from '../../generated/protocol';
import type { ViewProps } from '../asking';
import { Frame } from '../frame';
import { Heat } from '../heat';
import { cellOf, firstOf, numbersOf } from '../numbers';
import { useSelection } from '../selection';
import type { Chosen } from '../selection';

/** Rows from, to, columns from, to. */
type Window = [number, number, number, number];

interface Tile {
  grid: Grid;
  buffers: DataView[];
  /** Of which view it is a part. */
  of: ArrayView;
}

const MOST: [number, number] = [512, 1024];
const SOON = 80; // ms after the last turn of the wheel

export function Array_({ header, buffers, selection, change, request, of }: ViewProps<ArrayView>) {
  const chosen = useSelection(selection);
  const whole = header.grid;
  const [tile, setTile] = useState<Tile | null>(null);
  const [index, setIndex] = useState(header.index);
  const [here, setHere] = useState<[number, number] | null>(null); // what was clicked, as numbers along both axes
  const asked = useRef(0);
  const part = tile?.of === header ? tile : null;
  const grid = part?.grid ?? whole;
  const bytes = part?.buffers ?? buffers;
  const numbers = useMemo(() => grid && numbersOf(grid, bytes), [grid, bytes]);
  useEffect(() => setIndex(header.index), [header]);
  useEffect(() => setHere(null), [header.down, header.across]);

  const { down, across, shape, names } = header;
  const size: [number, number] = [down === null ? 1 : shape[down], across === null ? 1 : shape[across]];
  const shownWindow: Window = grid ? windowOf(grid) : [0, 1, 0, 1];

  const see = (window: Window, at = index, soon = 0) => {
    if (!request || !of || !whole) {
      return;
    }
    const mine = ++asked.current;
    const params = { ...of, down, across, index: at, window, most: MOST, merged: whole.merged, limit: whole.limit };
    window_(async () => {
      if (mine !== asked.current) {
        return;
      }
      const answer = await request('tile', params).catch(() => null); // a cut line is said elsewhere
      if (answer && mine === asked.current) {
        setTile({ grid: answer.reply.grid, buffers: answer.buffers, of: header });
      }
    }, soon);
  };
  const zoom = (by: number, [y, x] = [0.5, 0.5]) => see(zoomed(shownWindow, size, by, y, x), index, SOON);
  const wheel = useRef<HTMLDivElement>(null);
  const zoomNow = useRef(zoom);
  zoomNow.current = zoom;
  useEffect(() => {
    const element = wheel.current;
    const turn = (event: WheelEvent) => {
      const canvas = event.target as Element;
      // With Ctrl alone: a page that is scrolled is not to stop at each picture.
      if (!(event.ctrlKey || event.metaKey) || canvas.tagName !== 'CANVAS') {
        return;
      }
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      zoomNow.current(event.deltaY > 0 ? 1.6 : 1 / 1.6, [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]);
    };
    element?.addEventListener('wheel', turn, { passive: false });
    return () => element?.removeEventListener('wheel', turn);
  }, []);

  const others = shape.map((_, axis) => axis).filter(axis => axis !== down && axis !== across);
  const slide = (axis: number, to: number) => {
    const next = index.map((each, at) => (at === axis ? to : each));
    setIndex(next);
    see(shownWindow, next, SOON);
  };
  const pinned = grid && {
    row: cellOf(grid.rows, chosenOn(grid.rows, chosen, here?.[0])),
    column: cellOf(grid.columns, chosenOn(grid.columns, chosen, here?.[1]))
  };
  return (
    <Frame
      header={header}
      buffers={bytes}
      quiet={of ? '' : header.text}
      picture={grid && numbers ? { grid, numbers } : null}
      change={change}
      tools={change && shape.length > 1 && <Axes header={header} change={change} />}
    >
      <div ref={wheel}>
        {grid && numbers && (
          <Heat
            grid={grid}
            numbers={numbers}
            label={`Picture of ${header.title}`}
            pinned={pinned}
            pin={({ row, column }) => {
              const at: [number, number] = [firstOf(grid.rows, row), firstOf(grid.columns, column)];
              setHere(at);
              selection.choose({ ...choiceOn(grid.rows, at[0]), ...choiceOn(grid.columns, at[1]) });
            }}
          />
        )}
      </div>
      {request && others.some(axis => shape[axis] > 1) && (
        <div className="wb-sliders">
          {others
            .filter(axis => shape[axis] > 1)
            .map(axis => (
              <label key={axis}>
                {names[axis]}{' '}
                <input
                  type="range"
                  aria-label={names[axis]}
                  min={0}
                  max={shape[axis] - 1}
                  value={index[axis]}
                  onChange={event => slide(axis, Number(event.target.value))}
                />{' '}
                <output>{index[axis]}</output>
              </label>
            ))}
        </div>
      )}
      {request && grid && (part !== null || grid.rows.step > 1 || grid.columns.step > 1) && (
        <div className="wb-zoom">
          <button className="wb-icon" aria-label="Enlarge" title="Enlarge (Ctrl + wheel)" onClick={() => zoom(0.5)}>
            +
          </button>
          <button className="wb-icon" aria-label="Reduce" title="Reduce (Ctrl + wheel)" onClick={() => zoom(2)}>
            −
          </button>
          <button className="wb-icon" onClick={() => see([0, size[0], 0, size[1]])}>
            whole
          </button>
          {(['up', 'down', 'left', 'right'] as const).map(way => (
            <button key={way} className="wb-icon" aria-label={`Move ${way}`} onClick={() => see(moved(shownWindow, size, way))}>
              {{ up: '↑', down: '↓', left: '←', right: '→' }[way]}
            </button>
          ))}
          <span className="wb-quiet">
            rows {shownWindow[0]}–{shownWindow[1] - 1} of {size[0].toLocaleString('en')} · columns {shownWindow[2]}–{shownWindow[3] - 1} of{' '}
            {size[1].toLocaleString('en')}
            {grid.rows.step * grid.columns.step > 1 ? ` · a cell is ${grid.rows.step} × ${grid.columns.step}` : ''}
          </span>
        </div>
      )}
    </Frame>
  );
}

/** Which axes run down and to the right, and how neighbours are merged. */
function Axes({ header, change }: { header: ArrayView; change: NonNullable<ViewProps<ArrayView>['change']> }) {
  const { shape, names, down, across, index, grid } = header;
  const pick = (label: string, value: number | null, other: number | null, which: 'down' | 'across') => (
    <select
      className="wb-inline"
      aria-label={label}
      value={value ?? ''}
      onChange={event => {
        const to = Number(event.target.value);
        const next = { down, across, [which]: to };
        change(to === other ? { kind: 'array', down: across, across: down, index } : { kind: 'array', ...next, index });
      }}
    >
      {shape.map((length, axis) => (
        <option key={axis} value={axis}>
          {names[axis]} {length}
        </option>
      ))}
    </select>
  );
  return (
    <>
      <span className="wb-picker">↓ {pick('Axis down', down, across, 'down')}</span>
      <span className="wb-picker">→ {pick('Axis across', across, down, 'across')}</span>
      {grid && grid.rows.step * grid.columns.step > 1 && (
        <select
          className="wb-inline"
          aria-label="Merge by"
          value={grid.merged}
          onChange={event => change({ kind: 'array', down, across, index, merged: event.target.value as Grid['merged'] })}
        >
          <option value="mean">mean</option>
          <option value="largest">largest</option>
        </select>
      )}
    </>
  );
}

/** What is chosen on an axis, by what its name means; else what was clicked here. */
function chosenOn(axis: Axis, chosen: Chosen, here: number | undefined): number | undefined {
  switch (axis.name) {
    case 'position':
    case 'query':
      return chosen.position ?? undefined;
    case 'key':
      return chosen.key ?? undefined;
    case 'head':
      return chosen.head ?? undefined;
    case 'feature':
      return chosen.feature?.of === axis.length ? chosen.feature.at : undefined;
    default:
      return here;
  }
}

function choiceOn(axis: Axis, at: number): Partial<Chosen> {
  switch (axis.name) {
    case 'position':
    case 'query':
      return { position: at };
    case 'key':
      return { key: at };
    case 'head':
      return { head: at };
    case 'feature':
      return { feature: { at, of: axis.length } };
    default:
      return {};
  }
}

const windowOf = ({ rows, columns }: Grid): Window => [
  rows.start,
  Math.min(rows.length, rows.start + rows.size * rows.step),
  columns.start,
  Math.min(columns.length, columns.start + columns.size * columns.step)
];

/** The window `by` times as large about a point of it, within the whole. */
function zoomed([top, bottom, left, right]: Window, size: [number, number], by: number, y: number, x: number): Window {
  const along = (from: number, to: number, length: number, at: number): [number, number] => {
    const wide = Math.max(Math.min(8, length), Math.min(length, Math.round((to - from) * by)));
    const start = Math.max(0, Math.min(length - wide, Math.round(from + at * (to - from) - at * wide)));
    return [start, start + wide];
  };
  return [...along(top, bottom, size[0], y), ...along(left, right, size[1], x)];
}

function moved([top, bottom, left, right]: Window, size: [number, number], way: 'up' | 'down' | 'left' | 'right'): Window {
  const along = (from: number, to: number, length: number, sign: number): [number, number] => {
    const start = Math.max(0, Math.min(length - (to - from), from + sign * Math.max(1, Math.round((to - from) / 2))));
    return [start, start + to - from];
  };
  const rows = { up: -1, down: 1, left: 0, right: 0 }[way];
  const columns = { up: 0, down: 0, left: -1, right: 1 }[way];
  return [
    ...(rows ? along(top, bottom, size[0], rows) : ([top, bottom] as [number, number])),
    ...(columns ? along(left, right, size[1], columns) : ([left, right] as [number, number]))
  ];
}

const window_ = (act: () => Promise<void>, soon: number): void => void window.setTimeout(() => void act(), soon);
