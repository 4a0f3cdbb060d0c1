/** The residual stream: what the model would say after each layer, or how large the stream is. */

import { useMemo, useState } from 'react';
import type { ResidualView } from '../../generated/protocol';
import type { ViewProps } from '../asking';
import { Frame } from '../frame';
import { Heat } from '../heat';
import type { Cell } from '../heat';
import { cellOf, exact, firstOf, numbersOf, seen } from '../numbers';
import { useSelection } from '../selection';

export function Residual({ header, buffers, selection, change }: ViewProps<ResidualView>) {
  const [norms, setNorms] = useState(header.lens === null);
  const chosen = useSelection(selection);
  const grid = norms || !header.lens ? header.norms : header.lens;
  const numbers = useMemo(() => numbersOf(grid, buffers), [grid, buffers]);
  const sizes = useMemo(() => numbersOf(header.norms, buffers), [header, buffers]);
  const shift = header.norms.rows.labels[0] === 'embedding' ? 1 : 0; // the first row is before layer 0
  const many = grid.rows.size > 1;
  const row = chosen.layer === null || !many || chosen.layer + shift < 0 ? undefined : chosen.layer + shift;
  const at =
    chosen.position === null && row === undefined ? null : { row: many ? row : 0, column: cellOf(grid.columns, chosen.position) };
  const pin = ({ row, column }: Cell) =>
    selection.choose({ position: firstOf(grid.columns, column), ...(many ? { layer: row - shift } : {}) });
  const more = ({ row, column }: Cell) => {
    const index = row * grid.columns.size + column;
    const others = grid === header.lens ? header.runners[index] : undefined;
    const size = grid === header.lens ? `norm ${exact(sizes[index])}` : '';
    return [others?.length ? `then ${others.map(withChance).join(', ')}` : '', size].filter(Boolean).map(each => `· ${each}`).join(' ');
  };
  return (
    <Frame
      header={header}
      buffers={buffers}
      quiet={grid === header.lens ? 'layer × token · top token, shade = probability' : 'layer × token · norm'}
      picture={{ grid, numbers }}
      change={change}
      tools={
        header.lens && (
          <select
            className="wb-inline"
            aria-label={`Show of ${header.title}`}
            value={norms ? 'norms' : 'lens'}
            onChange={event => setNorms(event.target.value === 'norms')}
          >
            <option value="lens">top token</option>
            <option value="norms">norm</option>
          </select>
        )
      }
    >
      <Heat grid={grid} numbers={numbers} label={`Picture of ${header.title}`} pinned={at} pin={pin} more={more} />
    </Frame>
  );
}

/** A candidate as it comes, `token probability`, with the token's spaces to be seen. */
function withChance(candidate: string): string {
  const at = candidate.lastIndexOf(' ');
  return `${seen(candidate.slice(0, at))} ${candidate.slice(at + 1)}`;
}
