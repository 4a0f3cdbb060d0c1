/** Figure: a picture with its labels and legend as one SVG, and that SVG as a PNG. */

import type { Grid } from '../generated/protocol';
import { colour, css, ink, isDark, palette, rgb } from './colours';
import { paint } from './heat';
import { brief, seen } from './numbers';

export interface Numbers {
  grid: Grid;
  /** One sheet. */
  numbers: Float32Array;
}

const CELLS = 20_000; // more are put in as an image
const LEFT = 96;
const TOP = 32;
const BELOW = 84;

/** The picture as SVG. */
export function figure({ grid, numbers }: Numbers, title: string, beside: Element | null): string {
  const colours = palette(isDark(beside));
  const [text, ground] = colours.dark ? ['#e8e8e8', css(colours.theme.neutral)] : ['#333333', '#ffffff'];
  const { rows, columns, texts } = grid;
  const cell = { wide: Math.max(1, Math.min(texts.length ? 72 : 40, 800 / columns.size)), tall: Math.max(1, Math.min(24, 600 / rows.size)) };
  if (texts.length) {
    cell.wide = 72;
  }
  const [wide, tall] = [cell.wide * columns.size, cell.tall * rows.size];
  const parts: string[] = [];
  const write = (x: number, y: number, words: string, more = '', fill = text) =>
    parts.push(`<text x="${round(x)}" y="${round(y)}" fill="${fill}" ${more}>${escape(words)}</text>`);
  write(LEFT, 20, title, 'font-weight="600"');
  if (rows.size * columns.size <= CELLS) {
    for (let index = 0; index < rows.size * columns.size; index += 1) {
      const column = index % columns.size;
      const row = (index - column) / columns.size;
      if (grid.causal && rows.length === columns.length && column > row) {
        continue;
      }
      const [x, y] = [LEFT + column * cell.wide, TOP + row * cell.tall];
      const fill = colour(numbers[index], grid.limit, grid.scale, colours);
      parts.push(`<rect x="${round(x)}" y="${round(y)}" width="${round(cell.wide)}" height="${round(cell.tall)}" fill="${rgb(fill)}"/>`);
      if (texts[index] !== undefined) {
        write(x + cell.wide / 2, y + cell.tall * 0.65, seen(texts[index]), 'text-anchor="middle" font-size="11"', ink(fill));
      }
    }
  } else {
    const canvas = Object.assign(document.createElement('canvas'), { width: columns.size, height: rows.size });
    paint(canvas, grid, numbers, colours);
    parts.push(
      `<image x="${LEFT}" y="${TOP}" width="${round(wide)}" height="${round(tall)}" preserveAspectRatio="none" style="image-rendering:pixelated" href="${canvas.toDataURL()}"/>`
    );
  }
  rows.labels.slice(0, 64).forEach((label, row) => {
    write(LEFT - 6, TOP + (row + 0.7) * cell.tall, seen(label), 'text-anchor="end"');
  });
  columns.labels.slice(0, 64).forEach((label, column) => {
    const [x, y] = [LEFT + (column + 0.5) * cell.wide, TOP + tall + 12];
    write(x, y, seen(label), cell.wide < 40 ? `transform="rotate(-60 ${round(x)} ${y})" text-anchor="end"` : 'text-anchor="middle"');
  });
  const y = TOP + tall + BELOW - 20;
  const [below, neutral, above] = [colours.theme.below, colours.theme.neutral, colours.theme.above].map(css);
  const stops = grid.scale === 'diverging' ? [below, neutral, above] : [neutral, below];
  const gradient = stops.map((stop, at) => `<stop offset="${at / (stops.length - 1)}" stop-color="${stop}"/>`).join('');
  parts.push(`<defs><linearGradient id="scale">${gradient}</linearGradient></defs>`);
  parts.push(`<rect x="${LEFT + 44}" y="${y}" width="96" height="8" fill="url(#scale)" stroke="${text}" stroke-width="0.5"/>`);
  write(LEFT + 38, y + 9, grid.scale === 'diverging' ? brief(-grid.limit) : '0', 'text-anchor="end"');
  write(LEFT + 146, y + 9, `${brief(grid.limit)} ${grid.unit}`.trim());
  const [full, high] = [Math.round(LEFT + Math.max(wide, 320) + 16), Math.round(TOP + tall + BELOW)];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${full}" height="${high}" viewBox="0 0 ${full} ${high}" ` +
    `font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="${ground}"/>${parts.join('')}</svg>`
  );
}

/** The same as a PNG, two pixels a unit. */
export async function pngOf(picture: Numbers, title: string, beside: Element | null): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(figure(picture, title, beside))}`;
  await image.decode();
  const canvas = Object.assign(document.createElement('canvas'), { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext('2d')?.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) =>
    canvas.toBlob(blob => (blob ? resolve(blob) : reject(new Error('the picture is too large for a PNG'))), 'image/png')
  );
}

const round = (value: number): number => Math.round(value * 100) / 100;

const escape = (text: string): string => text.replace(/[&<>"]/g, each => `&#${each.charCodeAt(0)};`);
