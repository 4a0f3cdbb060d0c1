/** Attention: all heads of a layer small, the chosen one large, and what each does in numbers. */

import { useEffect, useMemo, useRef, useState } from 'react';
import type { AttentionView, Grid } from '../../generated/protocol';
import type { ViewProps } from '../asking';
import { Frame, Picker } from '../frame';
import { Heat, paint, useTheme } from '../heat';
import { colour, ink, rgb } from '../colours';
import { cellOf, exact, firstOf, isLater, numbersOf, seen, sheetOf } from '../numbers';
import { useLayer, useSelection } from '../selection';

export function Attention({ header, buffers, selection, change }: ViewProps<AttentionView>) {
  const chosen = useSelection(selection);
  const thumbs = useMemo(() => numbersOf(header.thumbs, buffers), [header, buffers]);
  const patterns = useMemo(() => numbersOf(header.pattern, buffers), [header, buffers]);
  const [under, setUnder] = useState<number | null>(null);
  useLayer(header, chosen, change && (layer => change({ layer })));
  const heads = header.thumbs.sheets;
  const head = Math.min(chosen.head ?? header.heads[0], heads - 1);
  const sheet = header.heads.indexOf(head);
  useEffect(() => {
    if (sheet < 0) {
      change?.({ head });
    }
  }, [sheet, head, change]);
  // Until the head that was asked for is here: its small picture.
  const grid: Grid = sheet < 0 ? header.thumbs : header.pattern;
  const numbers = sheet < 0 ? sheetOf(grid, thumbs, head) : sheetOf(grid, patterns, sheet);
  const score = header.scores[head];
  const pinned = { row: cellOf(grid.rows, chosen.position), column: cellOf(grid.columns, chosen.key) };
  const query = under ?? chosen.position;
  return (
    <Frame
      header={header}
      buffers={buffers}
      quiet={`${heads} heads · query ↓ key →`}
      picture={{ grid, numbers }}
      change={change}
      tools={
        <>
          {header.layers > 1 && header.layer !== null && change && (
            <Picker
              name="Layer"
              count={header.layers}
              value={header.layer}
              pick={layer => {
                selection.choose({ layer });
                change({ layer });
              }}
            />
          )}
          <Picker name="Head" count={heads} value={head} pick={head => selection.choose({ head })} />
        </>
      }
    >
      <div className="wb-heads">
        {Array.from({ length: heads }, (_, each) => (
          <button
            key={each}
            className="wb-head"
            aria-pressed={each === head}
            title={`head ${each} · ${told(header.scores[each])}`}
            onClick={() => selection.choose({ head: each })}
          >
            <Thumb grid={header.thumbs} numbers={sheetOf(header.thumbs, thumbs, each)} />
            <span>head {each}</span>
          </button>
        ))}
      </div>
      <Heat
        grid={grid}
        numbers={numbers}
        label={`Pattern of head ${head}`}
        square
        pinned={pinned}
        hover={cell => setUnder(cell && firstOf(grid.rows, cell.row))}
        pin={({ row, column }) =>
          selection.choose({ position: firstOf(grid.rows, row), key: firstOf(grid.columns, column) })
        }
      />
      {grid.rows.step === 1 && grid.columns.labels.length > 0 && grid.columns.size <= WORDS && (
        <Text
          grid={grid}
          numbers={numbers}
          query={query !== null && query < grid.rows.size ? query : grid.rows.size - 1}
          point={setUnder}
          pin={position => selection.choose({ position, key: null })}
        />
      )}
      <p className="wb-quiet wb-numbers">
        head {head} · {told(score)}
      </p>
    </Frame>
  );
}

function Thumb({ grid, numbers }: { grid: Grid; numbers: Float32Array }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const colours = useTheme(canvas);
  useEffect(() => {
    if (canvas.current && colours) {
      paint(canvas.current, grid, numbers, colours);
    }
  }, [grid, numbers, colours]);
  return <canvas ref={canvas} aria-hidden width={grid.columns.size} height={grid.rows.size} />;
}

function told(score: AttentionView['scores'][number] | undefined): string {
  if (!score) {
    return '';
  }
  const parts: [string, number | null][] = [
    ['entropy', score.entropy],
    ['previous', score.previous],
    ['first', score.first],
    ['itself', score.itself],
    ['induction', score.induction]
  ];
  return parts.map(([name, value]) => `${name} ${value === null ? '–' : value.toFixed(2)}`).join(' · ');
}

interface TextProps {
  grid: Grid;
  numbers: Float32Array;
  query: number;
  point(position: number | null): void;
  pin(position: number): void;
}

/** The prompt, each token in the colour of how much the pointed one looks at it. */
function Text({ grid, numbers, query, point, pin }: TextProps) {
  const host = useRef<HTMLParagraphElement>(null);
  const colours = useTheme(host);
  const wide = grid.columns.size;
  const name = (position: number) => seen(grid.columns.labels[position]);
  return (
    <div className="wb-spoken">
      <span className="wb-quiet">{looksAt(grid, numbers, query)}</span>
      <p ref={host} aria-label={`What ${name(query)} looks at`}>
        {grid.columns.labels.map((_, key) => {
          const value = numbers[query * wide + key];
          const later = isLater(grid, query, key);
          const at = colours && (later ? colours.later : colour(value, grid.limit, grid.scale, colours));
          return (
            <button
              key={key}
              className={key === query ? 'wb-query' : undefined}
              style={at === null ? undefined : { background: rgb(at), color: ink(at) }}
              title={later ? `${name(query)} does not see it` : `${name(query)} looks at it by ${exact(value)}`}
              onPointerEnter={() => point(key)}
              onPointerLeave={() => point(null)}
              onFocus={() => point(key)}
              onBlur={() => point(null)}
              onClick={() => pin(key)}
            >
              {name(key)}
            </button>
          );
        })}
      </p>
    </div>
  );
}

const WORDS = 512; // of a longer prompt no text

/** To what a position attends most. */
function looksAt(grid: Grid, numbers: Float32Array, position: number): string {
  const wide = grid.columns.size;
  const row = numbers.subarray(position * wide, (position + 1) * wide);
  const best = Array.from(row, (value, key) => [value, key]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const name = (key: number) => seen(grid.columns.labels[key]);
  return `${name(position)} looks at ${best.map(([value, key]) => `${name(key)} ${value.toFixed(2)}`).join(', ')}`;
}
