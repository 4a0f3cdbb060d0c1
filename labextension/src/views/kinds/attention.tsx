/** Attention: all heads of a layer small, the chosen one large, and what each does in numbers. */

import { useEffect, useMemo, useRef } from 'react';
import type { AttentionView, Grid } from '../../generated/protocol';
import type { ViewProps } from '../asking';
import { Frame } from '../frame';
import { Heat, paint, useTheme } from '../heat';
import { numbersOf, seen, sheetOf } from '../numbers';
import { useSelection } from '../selection';
import { asKind } from './residual';

export function Attention({ header, buffers, selection, change }: ViewProps<AttentionView>) {
  const chosen = useSelection(selection);
  const thumbs = useMemo(() => numbersOf(header.thumbs, buffers), [header, buffers]);
  const patterns = useMemo(() => numbersOf(header.pattern, buffers), [header, buffers]);
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
  const pinned = chosen.position === null ? null : { row: Math.floor(chosen.position / grid.rows.step) };
  return (
    <Frame
      header={header}
      buffers={buffers}
      quiet={`${heads} heads · query ↓ key →`}
      picture={{ grid, numbers }}
      as={asKind(change)}
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
          {header.rows > 1 && change && (
            <Picker name="Batch" count={header.rows} value={header.batch} pick={batch => change({ batch })} />
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
        pin={({ row }) => selection.choose({ position: grid.rows.start + row * grid.rows.step })}
      />
      <p className="wb-quiet wb-numbers">
        head {head} · {told(score)}
        {chosen.position !== null && sheet >= 0 && grid.rows.step === 1 && ` · ${looksAt(grid, numbers, chosen.position)}`}
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

export function Picker({ name, count, value, pick }: { name: string; count: number; value: number; pick(value: number): void }) {
  return (
    <label className="wb-picker">
      {name.toLowerCase()}{' '}
      <select className="wb-inline" aria-label={name} value={value} onChange={event => pick(Number(event.target.value))}>
        {Array.from({ length: count }, (_, each) => (
          <option key={each} value={each}>
            {each}
          </option>
        ))}
      </select>
    </label>
  );
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

/** To what a position attends most. */
function looksAt(grid: Grid, numbers: Float32Array, position: number): string {
  if (position >= grid.rows.size) {
    return '';
  }
  const row = Array.from(numbers.subarray(position * grid.columns.size, (position + 1) * grid.columns.size));
  const best = row.map((value, key) => [value, key]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const name = (key: number) => seen(grid.columns.labels[key] ?? `${key}`);
  return `${name(position)} looks at ${best.map(([value, key]) => `${name(key)} ${value.toFixed(2)}`).join(', ')}`;
}
