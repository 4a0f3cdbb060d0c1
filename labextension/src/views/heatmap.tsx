/** A saved activation drawn on a canvas: rows are positions with their tokens, columns are features. */

import { useEffect, useRef, useState } from 'react';
import type { Heatmap as Header, Saved } from '../generated/protocol';

interface Props {
  saved: Saved;
  data: DataView | undefined;
}

const ROW = 18;

export function SavedValue({ saved, data }: Props) {
  return (
    <section className="wb-view" aria-label={`Saved ${saved.name}`}>
      <header>
        <h2>{saved.name}</h2>
        <span className="wb-quiet">
          {saved.path || 'model'}.{saved.port} · {saved.text}
        </span>
      </header>
      {saved.view && data && <Picture name={saved.name} header={saved.view} data={data} />}
    </section>
  );
}

function Picture({ name, header, data }: { name: string; header: Header; data: DataView }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [hover, setHover] = useState('');
  const { rows, columns, limit } = header;

  useEffect(() => {
    const context = canvas.current?.getContext('2d');
    if (!context) {
      return;
    }
    const image = context.createImageData(columns, rows);
    for (let index = 0; index < rows * columns; index += 1) {
      paint(image.data, 4 * index, data.getFloat32(4 * index, true), limit);
    }
    context.putImageData(image, 0, 0);
  }, [data, rows, columns, limit]);

  const point = (x: number, y: number, box: DOMRect) => {
    const column = Math.min(columns - 1, Math.max(0, Math.floor(((x - box.left) / box.width) * columns)));
    const row = Math.min(rows - 1, Math.max(0, Math.floor(((y - box.top) / box.height) * rows)));
    const value = data.getFloat32(4 * (row * columns + column), true);
    const stride = header.stride ?? 1;
    const feature = stride > 1 ? `${column * stride}–${column * stride + stride - 1} (mean)` : `${column}`;
    setHover(`${row} ${header.row_labels[row] ?? ''} · feature ${feature} · ${value.toPrecision(4)}`);
  };

  const outside = [
    header.clipped ? `${header.clipped} clipped` : '',
    header.nan ? `${header.nan} NaN` : '',
    header.infinite ? `${header.infinite} Inf` : ''
  ].filter(Boolean);

  return (
    <div className="wb-picture">
      <ol className="wb-rowlabels" aria-hidden>
        {header.row_labels.map((label, index) => (
          <li key={index} style={{ height: ROW }}>
            {label.replaceAll(' ', '␣')}
          </li>
        ))}
      </ol>
      <canvas
        ref={canvas}
        role="img"
        aria-label={`Heatmap of ${name}, ${rows} by ${columns}`}
        width={columns}
        height={rows}
        style={{ height: rows * ROW }}
        onMouseMove={event => point(event.clientX, event.clientY, event.currentTarget.getBoundingClientRect())}
        onMouseLeave={() => setHover('')}
      />
      <div className="wb-legend">
        <span>{(-limit).toPrecision(3)}</span>
        <i />
        <span>+{limit.toPrecision(3)}</span>
        <span className="wb-quiet">{hover || outside.join(' · ')}</span>
      </div>
    </div>
  );
}

/** Blue below zero, white at zero, orange above; grey where there is no number. */
function paint(pixels: Uint8ClampedArray, at: number, value: number, limit: number): void {
  const end = value < 0 ? [33, 102, 172] : [224, 112, 20];
  const part = Math.min(1, Math.abs(value) / (limit || 1));
  const missing = Number.isNaN(value);
  for (let channel = 0; channel < 3; channel += 1) {
    pixels[at + channel] = missing ? 128 : 255 + (end[channel] - 255) * part;
  }
  pixels[at + 3] = 255;
}
