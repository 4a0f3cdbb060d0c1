/**
 * The colours of all pictures, chosen once: blue below zero, orange above, about a neutral that is the page's own;
 * blue alone for what has no sign. Told apart by colour-blind eyes too. What lies beyond the scale is marked: beyond a
 * limit by a shade past the scale's end, an infinity by black (white in the dark), what is no number by grey.
 */

type Colour = [number, number, number];

interface Theme {
  below: Colour;
  neutral: Colour;
  above: Colour;
  /** Beyond the limits. */
  under: Colour;
  over: Colour;
  infinite: Colour;
  missing: Colour;
  /** Of a causal pattern, what comes later: no zero, but nothing at all. */
  later: Colour;
}

const LIGHT: Theme = {
  below: [33, 102, 172],
  neutral: [255, 255, 255],
  above: [224, 112, 20],
  under: [13, 47, 105],
  over: [140, 58, 0],
  infinite: [0, 0, 0],
  missing: [150, 150, 150],
  later: [236, 238, 241]
};
const DARK: Theme = {
  below: [92, 164, 232],
  neutral: [30, 31, 34],
  above: [240, 146, 62],
  under: [178, 216, 255],
  over: [255, 208, 160],
  infinite: [255, 255, 255],
  missing: [118, 118, 118],
  later: [52, 54, 60]
};

const STEPS = 256;

export interface Palette {
  dark: boolean;
  diverging: Uint32Array;
  sequential: Uint32Array;
  missing: number;
  infinite: number;
  later: number;
  under: number;
  over: number;
  /** For a legend, as CSS. */
  css: { diverging: string; sequential: string };
  theme: Theme;
}

const mix = (from: Colour, to: Colour, part: number): Colour =>
  from.map((channel, index) => Math.round(channel + (to[index] - channel) * part)) as Colour;

/** A colour as a pixel of an ImageData on a little-endian machine. */
const pixel = ([red, green, blue]: Colour): number => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;

export const css = ([red, green, blue]: Colour): string => `rgb(${red}, ${green}, ${blue})`;

function made(theme: Theme, dark: boolean): Palette {
  const diverging = new Uint32Array(2 * STEPS + 1);
  const sequential = new Uint32Array(STEPS + 1);
  for (let step = 0; step <= STEPS; step += 1) {
    const part = step / STEPS;
    diverging[STEPS - step] = pixel(mix(theme.neutral, theme.below, part));
    diverging[STEPS + step] = pixel(mix(theme.neutral, theme.above, part));
    sequential[step] = pixel(mix(theme.neutral, theme.below, part));
  }
  const [below, neutral, above] = [theme.below, theme.neutral, theme.above].map(css);
  return {
    dark,
    diverging,
    sequential,
    missing: pixel(theme.missing),
    infinite: pixel(theme.infinite),
    later: pixel(theme.later),
    under: pixel(theme.under),
    over: pixel(theme.over),
    css: {
      diverging: `linear-gradient(to right, ${below}, ${neutral}, ${above})`,
      sequential: `linear-gradient(to right, ${neutral}, ${below})`
    },
    theme
  };
}

const PALETTES = { light: made(LIGHT, false), dark: made(DARK, true) };

export const palette = (dark: boolean): Palette => (dark ? PALETTES.dark : PALETTES.light);

/** Whether what stands behind an element is dark; asked of the page itself, since every host says it in another way. */
export function isDark(element: Element | null): boolean {
  for (let each = element; each; each = each.parentElement ?? hostOf(each)) {
    const found = /rgba?\(([^)]+)\)/.exec(getComputedStyle(each).backgroundColor);
    const [red, green, blue, alpha = 1] = (found?.[1] ?? '').split(',').map(Number);
    if (found && alpha > 0) {
      return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
    }
  }
  return false;
}

/** What a shadow tree, as marimo makes, hangs on. */
function hostOf(element: Element): Element | null {
  const root = element.getRootNode();
  return root instanceof ShadowRoot ? root.host : null;
}

/** The part of the way to the end of the colours, -1 to 1. */
export const part = (value: number, limit: number): number => Math.max(-1, Math.min(1, value / (limit || 1)));

/** A number's pixel. */
export function colour(value: number, limit: number, scale: 'diverging' | 'sequential', of: Palette): number {
  if (Number.isNaN(value)) {
    return of.missing;
  }
  if (!Number.isFinite(value)) {
    return of.infinite;
  }
  if (Math.abs(value) > limit * (1 + 1e-6)) {
    return scale === 'diverging' && value > 0 ? of.over : of.under;
  }
  const at = part(value, limit);
  return scale === 'diverging' ? of.diverging[STEPS + Math.round(at * STEPS)] : of.sequential[Math.round(Math.abs(at) * STEPS)];
}

/** The pixels of many numbers: the same colours in one go, for half a million of them take a while one by one. */
export function paintAll(numbers: Float32Array, pixels: Uint32Array, limit: number, scale: 'diverging' | 'sequential', of: Palette): void {
  const end = limit * (1 + 1e-6);
  const by = STEPS / (limit || 1);
  const signed = scale === 'diverging';
  const table = signed ? of.diverging : of.sequential;
  const { under, missing, infinite } = of;
  const over = signed ? of.over : under;
  for (let index = 0; index < pixels.length; index += 1) {
    const value = numbers[index];
    if (value >= -end && value <= end) {
      pixels[index] = table[(signed ? STEPS + value * by + 0.5 : Math.abs(value) * by + 0.5) | 0];
    } else if (value > end) {
      pixels[index] = value === Infinity ? infinite : over;
    } else {
      pixels[index] = value !== value ? missing : value === -Infinity ? infinite : under;
    }
  }
}

export const rgb = (value: number): string => `rgb(${value & 255}, ${(value >> 8) & 255}, ${(value >> 16) & 255})`;

/** A channel's light, as sRGB has it. */
const light = (channel: number): number =>
  channel <= 10 ? channel / 255 / 12.92 : ((channel / 255 + 0.055) / 1.055) ** 2.4;

/** Black or white, whichever stands out more on a pixel: by the luminance of WCAG, at least 4.5 to 1. */
export const ink = (value: number): string =>
  0.2126 * light(value & 255) + 0.7152 * light((value >> 8) & 255) + 0.0722 * light((value >> 16) & 255) > 0.179
    ? '#000000'
    : '#ffffff';
