/** Gradients by layer and position: activation × gradient, or the norm. */

import { useMemo, useState } from 'react';
import type { GradientView } from '../../generated/protocol';
import type { ViewProps } from '../asking';
import { Frame } from '../frame';
import { Heat } from '../heat';
import { cellOf, exact, firstOf, numbersOf } from '../numbers';
import { useSelection } from '../selection';

export function Gradient({ header, buffers, selection, change }: ViewProps<GradientView>) {
  const [norms, setNorms] = useState(header.product === null);
  const chosen = useSelection(selection);
  const grid = norms || !header.product ? header.norms : header.product;
  const other = grid === header.norms ? header.product : header.norms;
  const numbers = useMemo(() => numbersOf(grid, buffers), [grid, buffers]);
  const others = useMemo(() => other && numbersOf(other, buffers), [other, buffers]);
  const many = grid.rows.size > 1;
  const row = !many ? 0 : chosen.layer === null || chosen.layer < 0 ? undefined : chosen.layer;
  const at = chosen.position === null && (row === undefined || !many) ? null : { row, column: cellOf(grid.columns, chosen.position) };
  return (
    <Frame
      header={header}
      buffers={buffers}
      quiet={grid === header.product ? 'layer × token · activation × gradient' : 'layer × token · norm'}
      picture={{ grid, numbers }}
      change={change}
      tools={
        header.product && (
          <select
            className="wb-inline"
            aria-label={`Show of ${header.title}`}
            value={norms ? 'norms' : 'product'}
            onChange={event => setNorms(event.target.value === 'norms')}
          >
            <option value="product">activation × gradient</option>
            <option value="norms">norm</option>
          </select>
        )
      }
    >
      <Heat
        grid={grid}
        numbers={numbers}
        label={`Picture of ${header.title}`}
        pinned={at}
        pin={({ row, column }) => selection.choose({ position: firstOf(grid.columns, column), ...(many ? { layer: row } : {}) })}
        more={({ row, column }) =>
          others ? `· ${grid === header.norms ? 'activation × gradient' : 'norm'} ${exact(others[row * grid.columns.size + column])}` : ''
        }
      />
    </Frame>
  );
}
