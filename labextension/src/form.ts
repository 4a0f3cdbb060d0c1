/** The kinds' JSON schemas, read as forms: which parts a card's sentence has, and how each is shown. */

import type { Card } from './experiment';
import type { KindInfo, KindsReply, Target } from './generated/protocol';

/** One part of a sentence. */
export interface Field {
  key: string;
  /** The words before it. */
  title: string;
  description: string;
  widget: string;
  unit: string;
  placeholder: string;
  step: number | undefined;
  minimum: number | undefined;
  nullable: boolean;
  /** Values that it can have, with words for each. */
  choices: { value: string; words: string }[];
  /** It is shown only while other fields have one of these values. */
  when: Record<string, unknown[]>;
}

type Schema = Record<string, unknown>;

/** Parts that every card has, and that its frame shows. */
const FRAME = new Set(['id', 'enabled', 'kind', 'at', 'note', 'prompt']);

const cache = new WeakMap<object, Field[]>();

/** A schema's fields, in its own order. */
function fieldsOf(schema: Schema): Field[] {
  let found = cache.get(schema);
  if (!found) {
    found = Object.entries((schema['properties'] ?? {}) as Record<string, Schema>).map(([key, each]) => field(key, each));
    cache.set(schema, found);
  }
  return found;
}

function field(key: string, schema: Schema): Field {
  const options = (schema['anyOf'] as Schema[] | undefined) ?? [schema];
  const types = options.map(each => each['type'] as string | undefined);
  const words = (schema['words'] ?? {}) as Record<string, string>;
  const values = (options.find(each => each['enum'])?.['enum'] ?? []) as string[];
  const title = (schema['title'] as string | undefined) ?? key;
  return {
    key,
    title: title.toLowerCase().replaceAll('_', ' ') === key.replaceAll('_', ' ') ? title.toLowerCase() : title,
    description: (schema['description'] as string | undefined) ?? '',
    widget: (schema['widget'] as string | undefined) ?? guessed(types, values),
    unit: (schema['unit'] as string | undefined) ?? '',
    placeholder: (schema['placeholder'] as string | undefined) ?? '',
    step: schema['step'] as number | undefined,
    minimum: options.map(each => each['minimum'] as number | undefined).find(each => each !== undefined),
    nullable: types.includes('null'),
    choices: values.map(value => ({ value, words: words[value] ?? value })),
    when: (schema['when'] ?? {}) as Record<string, unknown[]>
  };
}

/** For a field that says nothing of how it is shown. */
function guessed(types: (string | undefined)[], values: string[]): string {
  if (values.length) {
    return 'choice';
  }
  if (types.includes('boolean')) {
    return 'switch';
  }
  return types.includes('number') || types.includes('integer') ? 'number' : 'text';
}

/** The parts of a card's own, those that show at present. */
export function partsOf(info: KindInfo, card: Card): Field[] {
  const values = card as unknown as Record<string, unknown>;
  return fieldsOf(info.form as Schema).filter(
    each => !FRAME.has(each.key) && Object.entries(each.when).every(([key, wanted]) => wanted.includes(values[key]))
  );
}

export function targetFields(kinds: KindsReply): Record<string, Field> {
  return Object.fromEntries(fieldsOf(kinds.target as Schema).map(each => [each.key, each]));
}

/** A target as its schema says that it begins. */
export function newTarget(kinds: KindsReply): Omit<Target, 'path'> {
  const properties = (kinds.target['properties'] ?? {}) as Record<string, Schema>;
  const defaults = Object.entries(properties).map(([key, each]) => [key, each['default'] ?? null]);
  return Object.fromEntries(defaults) as unknown as Target;
}

export function metricField(kinds: KindsReply): Field | undefined {
  return fieldsOf(kinds.measure as Schema).find(each => each.key === 'metric');
}

/** `0, 3, -1` and `4–7` as numbers; null for nothing or `all`; undefined where it is not a list of numbers. */
export function parseList(text: string): number[] | null | undefined {
  const words = text.replaceAll('−', '-').trim();
  if (words === '' || words === 'all') {
    return null;
  }
  const found: number[] = [];
  for (const part of words.split(/[\s,]+/).filter(Boolean)) {
    const range = /^(\d+)[-–](\d+)$/.exec(part);
    if (range) {
      const [from, to] = [Number(range[1]), Number(range[2])];
      if (to < from || to - from > 4096) {
        return undefined;
      }
      for (let each = from; each <= to; each += 1) {
        found.push(each);
      }
    } else if (/^-?\d+$/.test(part)) {
      found.push(Number(part));
    } else {
      return undefined;
    }
  }
  return [...new Set(found)];
}

/** Numbers as a person writes them: `0–3, 7, −1`. */
export function showList(numbers: number[] | null): string {
  if (!numbers) {
    return '';
  }
  const parts: string[] = [];
  for (let at = 0; at < numbers.length; ) {
    let end = at;
    while (numbers[end] >= 0 && numbers[end + 1] === numbers[end] + 1) {
      end += 1;
    }
    parts.push(end - at >= 2 ? `${numbers[at]}–${numbers[end]}` : numbers.slice(at, end + 1).map(signed).join(', '));
    at = end + 1;
  }
  return parts.join(', ');
}

export const signed = (number: number): string => `${number}`.replace('-', '−');
