/** Neurons: the strongest of an MLP by position, and one of them over the text. */

import { useMemo, useRef, useState } from 'react';
import type { NeuronsView } from '../../generated/protocol';
import type { ViewProps } from '../asking';
import { colour, ink, rgb } from '../colours';
import { Frame, Picker } from '../frame';
import { Heat, useTheme } from '../heat';
import { cellOf, exact, firstOf, numbersOf, placeOf, seen } from '../numbers';
import { useLayer, useSelection } from '../selection';

export function Neurons({ header, buffers, selection, change }: ViewProps<NeuronsView>) {
  const chosen = useSelection(selection);
  const { grid, neurons } = header;
  const numbers = useMemo(() => numbersOf(grid, buffers), [grid, buffers]);
  const neuron = chosen.feature?.of === header.width ? chosen.feature.at : neurons[0];
  const row = Math.max(0, neurons.indexOf(neuron));
  useLayer(header, chosen, change && (layer => change({ layer, neurons: [] })));
  const choose = (at: number) => ({ feature: { at, of: header.width } });
  const at = { row, column: cellOf(grid.columns, chosen.position) };
  const [asked, setAsked] = useState('');
  const ask = () => {
    const neuron = Number(asked);
    if (asked !== '' && Number.isInteger(neuron) && neuron >= 0 && neuron < header.width) {
      selection.choose(choose(neuron));
      if (!neurons.includes(neuron)) {
        change?.({ neurons: [neuron] });
      }
    }
  };
  return (
    <Frame
      header={header}
      buffers={buffers}
      quiet={`${neurons.length} of ${header.width.toLocaleString('en')}, the strongest first`}
      picture={{ grid, numbers }}
      change={change}
      tools={
        change && (
          <>
            {header.layers > 1 && header.layer !== null && (
              <Picker
                name="Layer"
                count={header.layers}
                value={header.layer}
                pick={layer => {
                  selection.choose({ layer, feature: null });
                  change({ layer, neurons: [] });
                }}
              />
            )}
            <label className="wb-picker">
              neuron{' '}
              <input
                className="wb-inline"
                aria-label="Neuron"
                inputMode="numeric"
                size={5}
                value={asked}
                placeholder={`0–${header.width - 1}`}
                onChange={event => setAsked(event.target.value)}
                onKeyDown={event => event.key === 'Enter' && ask()}
                onBlur={ask}
              />
            </label>
          </>
        )
      }
    >
      <Heat
        grid={grid}
        numbers={numbers}
        label={`Picture of ${header.title}`}
        pinned={at}
        pin={cell => selection.choose({ ...choose(neurons[cell.row]), position: firstOf(grid.columns, cell.column) })}
      />
      <Text header={header} row={row} numbers={numbers} selection={selection} />
    </Frame>
  );
}

/** The prompt, each token on the colour of what the neuron is there. */
function Text({ header, row, numbers, selection }: Pick<ViewProps<NeuronsView>, 'header' | 'selection'> & { row: number; numbers: Float32Array }) {
  const host = useRef<HTMLParagraphElement>(null);
  const colours = useTheme(host);
  const { grid, neurons } = header;
  const wide = grid.columns.size;
  const values = numbers.subarray(row * wide, (row + 1) * wide);
  return (
    <div className="wb-spoken">
      <span className="wb-quiet">
        neuron {neurons[row]} · strongest at {header.at[row]} {seen(grid.columns.labels[header.at[row]] ?? '')}
      </span>
      <p ref={host} aria-label={`Neuron ${neurons[row]} over the text`}>
        {Array.from(values, (value, position) => {
          const at = colours && colour(value, grid.limit, 'diverging', colours);
          return (
            <button
              key={position}
              style={at === null ? undefined : { background: rgb(at), color: ink(at) }}
              title={`${placeOf(grid.columns, position)} · ${exact(value)}`}
              aria-label={`${grid.columns.labels[position] ?? position}: ${exact(value)}`}
              onClick={() => selection.choose({ position: firstOf(grid.columns, position) })}
            >
              {seen(grid.columns.labels[position] ?? `${position}`)}
            </button>
          );
        })}
      </p>
    </div>
  );
}
