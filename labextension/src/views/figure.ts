/** Figure: a picture with its labels and legend as one SVG, and that SVG as a PNG. */

import type { Axis, Grid, LogitsView } from '../generated/protocol';
import { colour, css, ink, isDark, palette, rgb } from './colours';
import type { Palette } from './colours';
import { paint } from './heat';
import { brief, chance, isLater, seen, summaryOf, wordOf } from './numbers';

export interface Numbers {
  grid: Grid;
  /** One sheet. */
  numbers: Float32Array;
}

/** Next tokens after one position. */
export interface Bars {
  at: LogitsView['at'][number];
  /** The token at that position. */
  after: string | undefined;
}

export type Picture = Numbers | Bars;

const CELLS = 20_000; // more are put in as an image
const LEFT = 96;
const TOP = 32;
const BELOW = 84;
const BAR = 240;
const ROW = 24;

/** The picture as SVG, on the ground that stands behind an element. */
export function figure(picture: Picture, title: string, beside: Element | null): string {
  const sheet = new Sheet(palette(isDark(beside)), title);
  return 'grid' in picture ? cells(sheet, picture) : bars(sheet, picture);
}

/** What is drawn so far. */
class Sheet {
  readonly parts: string[] = [];
  readonly text: string;
  private readonly ground: string;

  constructor(
    readonly colours: Palette,
    title: string
  ) {
    this.text = colours.dark ? '#e8e8e8' : '#333333';
    this.ground = css(colours.theme.neutral);
    this.write(LEFT, 20, title, 'font-weight="600"');
  }

  write(x: number, y: number, words: string, more = '', fill = this.text): void {
    this.parts.push(`<text x="${round(x)}" y="${round(y)}" fill="${fill}" ${more}>${escape(words)}</text>`);
  }

  box(x: number, y: number, wide: number, high: number, fill: string, more = ''): void {
    this.parts.push(`<rect x="${round(x)}" y="${round(y)}" width="${round(wide)}" height="${round(high)}" fill="${fill}"${more}/>`);
  }

  done(wide: number, high: number): string {
    const [full, tall] = [Math.round(wide), Math.round(high)];
    return (
      `<svg xmlns="http://www.w3.org/2000/svg" width="${full}" height="${tall}" viewBox="0 0 ${full} ${tall}" ` +
      `font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="${this.ground}"/>${this.parts.join('')}</svg>`
    );
  }
}

function cells(sheet: Sheet, { grid, numbers }: Numbers): string {
  const { rows, columns, texts } = grid;
  const { colours } = sheet;
  const share = Math.max(1, Math.min(40, 800 / columns.size));
  const cell = { wide: texts.length ? 72 : share, tall: Math.max(1, Math.min(24, 600 / rows.size)) };
  const [wide, tall] = [cell.wide * columns.size, cell.tall * rows.size];
  if (rows.size * columns.size <= CELLS) {
    for (let index = 0; index < rows.size * columns.size; index += 1) {
      const column = index % columns.size;
      const row = (index - column) / columns.size;
      const [x, y] = [LEFT + column * cell.wide, TOP + row * cell.tall];
      const later = isLater(grid, row, column);
      const fill = later ? colours.later : colour(numbers[index], grid.limit, grid.scale, colours);
      sheet.box(x, y, cell.wide, cell.tall, rgb(fill));
      if (texts[index] !== undefined) {
        sheet.write(x + cell.wide / 2, y + cell.tall * 0.65, seen(texts[index]), 'text-anchor="middle" font-size="11"', ink(fill));
      }
    }
  } else {
    const canvas = Object.assign(document.createElement('canvas'), { width: columns.size, height: rows.size });
    paint(canvas, grid, numbers, colours);
    sheet.parts.push(
      `<image x="${LEFT}" y="${TOP}" width="${round(wide)}" height="${round(tall)}" preserveAspectRatio="none" style="image-rendering:pixelated" href="${canvas.toDataURL()}"/>`
    );
  }
  sheet.parts.push(`<rect x="${LEFT}" y="${TOP}" width="${round(wide)}" height="${round(tall)}" fill="none" stroke="${sheet.text}" stroke-width="0.5"/>`);
  for (const [row, word] of labels(rows, tall, 14)) {
    sheet.write(LEFT - 6, TOP + (row + 0.5) * cell.tall + 4, word, 'text-anchor="end"');
  }
  const columnsNamed = labels(columns, wide, columns.labels.length ? 14 : 60);
  const slanted = columns.labels.length > 0 && cell.wide < 40;
  for (const [column, word] of columnsNamed) {
    const [x, y] = [LEFT + (column + 0.5) * cell.wide, TOP + tall + 14];
    sheet.write(x, y, word, slanted ? `transform="rotate(-60 ${round(x)} ${y})" text-anchor="end"` : 'text-anchor="middle"');
  }
  legend(sheet, grid, TOP + tall + BELOW - 20);
  return sheet.done(LEFT + Math.max(wide, 440) + 16, TOP + tall + BELOW);
}

/** As many of an axis' words as there is room for. */
function labels(axis: Axis, length: number, room: number): [number, string][] {
  const every = Math.max(1, Math.ceil((room * axis.size) / length));
  const found: [number, string][] = [];
  for (let cell = 0; cell < axis.size && axis.name; cell += every) {
    found.push([cell, axis.labels.length ? wordOf(axis, cell) : `${axis.start + cell * axis.step}`]);
  }
  return found;
}

function legend(sheet: Sheet, grid: Grid, y: number): void {
  const { theme, under, over, missing, infinite, later } = sheet.colours;
  const [below, neutral, above] = [theme.below, theme.neutral, theme.above].map(css);
  const signed = grid.scale === 'diverging';
  const stops = signed ? [below, neutral, above] : [neutral, below];
  const gradient = stops.map((stop, at) => `<stop offset="${at / (stops.length - 1)}" stop-color="${stop}"/>`).join('');
  sheet.parts.push(`<defs><linearGradient id="scale">${gradient}</linearGradient></defs>`);
  sheet.box(LEFT + 44, y, 96, 8, 'url(#scale)', ` stroke="${sheet.text}" stroke-width="0.5"`);
  sheet.write(LEFT + 38, y + 9, signed ? brief(-grid.limit) : '0', 'text-anchor="end"');
  sheet.write(LEFT + 146, y + 9, `${signed ? '+' : ''}${brief(grid.limit)} ${grid.unit}`.trim());
  let x = LEFT + 240;
  const marks: [string, number[], boolean][] = [
    [`${grid.clipped} clipped`, signed ? [under, over] : [under], grid.clipped > 0],
    [`${grid.nan} NaN`, [missing], grid.nan > 0],
    [`${grid.infinite} Inf`, [infinite], grid.infinite > 0],
    ['later', [later], isLater(grid, 0, 1)]
  ];
  for (const [words, colours] of marks.filter(([, , there]) => there)) {
    colours.forEach((each, at) => sheet.box(x + 12 * at, y, 8, 8, rgb(each), ` stroke="${sheet.text}" stroke-width="0.5"`));
    sheet.write(x + 12 * colours.length + 2, y + 9, words);
    x += 12 * colours.length + 16 + 7 * words.length;
  }
}

function bars(sheet: Sheet, { at, after }: Bars): string {
  const { theme } = sheet.colours;
  const [first, second] = [css(theme.below), css(theme.above)];
  const both = at.top.some(each => each.before !== null);
  at.top.forEach((each, row) => {
    const y = TOP + row * ROW;
    sheet.write(LEFT - 6, y + 14, seen(each.token), 'text-anchor="end"');
    const drawn: [number, string][] = both ? [[each.before ?? 0, first], [each.after, second]] : [[each.after, first]];
    drawn.forEach(([value, fill], bar) => sheet.box(LEFT, y + 3 + 7 * bar, Math.max(0.5, BAR * value), 6, fill));
    const ranks = both && each.before_rank !== each.after_rank ? `${each.before_rank ?? '–'} → ${each.after_rank}` : `${each.after_rank}`;
    const words = both ? `${chance(each.before)} → ${chance(each.after)}` : chance(each.after);
    sheet.write(LEFT + BAR + 12, y + 14, words);
    sheet.write(LEFT + BAR + 132, y + 14, `rank ${ranks}`);
  });
  const y = TOP + at.top.length * ROW + 20;
  sheet.write(LEFT, y, summaryOf(at, after));
  if (both) {
    const keys: [string, string, number][] = [['before', first, 0], ['after', second, 72]];
    keys.forEach(([words, fill, x]) => {
      sheet.box(LEFT + x, y + 12, 8, 8, fill);
      sheet.write(LEFT + x + 14, y + 20, words);
    });
  }
  return sheet.done(LEFT + BAR + 240, y + 36);
}

/** The same as a PNG, two pixels a unit. */
export async function pngOf(picture: Picture, title: string, beside: Element | null): Promise<Blob> {
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
