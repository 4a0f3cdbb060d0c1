/** Edits of an experiment, each giving a new one. The experiment is the kernel's data; here it is only changed. */

import { newTarget } from './form';
import type { Experiment, KindInfo, KindsReply, Target } from './generated/protocol';

export type Card = Experiment['interventions'][number];

const VERSION = 2;

export const empty = (model = ''): Experiment => ({
  version: VERSION,
  model,
  prompts: [''],
  generate: 0,
  temperature: 0,
  seed: null,
  measure: null,
  interventions: []
});

/** Whether something that was kept is an experiment of today's form. */
export function isExperiment(kept: unknown): kept is Experiment {
  const found = kept as Experiment | null | undefined;
  return found?.version === VERSION && Array.isArray(found.prompts) && Array.isArray(found.interventions);
}

/** Whether it is one of another form: an earlier one the kernel can read, a later one is left as it is. */
export function ofAnotherVersion(kept: unknown): kept is { version: number } {
  const version = (kept as { version?: unknown } | null | undefined)?.version;
  return typeof version === 'number' && version !== VERSION;
}

/** Whether two cards say the same, in whatever order their fields stand. */
export const sameCard = (a: Card | undefined, b: Card | undefined): boolean => plain(a) === plain(b);

const plain = (value: unknown): string =>
  JSON.stringify(value, (_, each: unknown) =>
    each !== null && typeof each === 'object' && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
      : each
  ) ?? '';

export const cards = (experiment: Experiment): Card[] => experiment.interventions;

/** Where a card applies; null for code, which applies nowhere in particular. */
export const targetOf = (card: Card): Target | null => ('at' in card ? card.at : null);

export function withCards(experiment: Experiment, interventions: Card[]): Experiment {
  return { ...experiment, interventions };
}

let made = 0;

function freshId(): string {
  made += 1;
  return `${Date.now().toString(36)}-${made}`;
}

/** A new card of a kind, at a module, as the kernel's schema says that it begins. */
export function newCard(experiment: Experiment, kinds: KindsReply, info: KindInfo, path: string): Card {
  const fields = (info.form['properties'] ?? {}) as Record<string, unknown>;
  const card: Record<string, unknown> = { note: '', ...info.new, id: freshId(), enabled: true, kind: info.kind };
  if ('at' in fields) {
    card['at'] = { ...newTarget(kinds), ...(info.new['at'] as object | undefined), path };
  }
  if ('name' in fields) {
    card['name'] = freshName(experiment, path);
  }
  return card as unknown as Card;
}

/** A Python name for what a module gives: `transformer.h.2.mlp` becomes `h2_mlp`, made unique by a number. */
export function freshName(experiment: Experiment, path: string): string {
  const parts = path.split('.').filter(part => part !== '');
  const short = parts
    .slice(-3)
    .join('_')
    .replace(/_(\d+)/g, '$1')
    .replace(/\W/g, '_')
    .replace(/^(transformer|model|layers)_?(?=[a-z])/, '');
  return unique(experiment, /^[a-zA-Z_]/.test(short) ? short : `output${short ? `_${short}` : ''}`);
}

function unique(experiment: Experiment, base: string): string {
  const taken = new Set(cards(experiment).flatMap(card => (card.kind === 'save' ? [card.name] : [])));
  taken.add(experiment.model).add('wb').add('tracer');
  let name = base;
  for (let number = 2; taken.has(name); number += 1) {
    name = `${base}_${number}`;
  }
  return name;
}

export function changeCard(experiment: Experiment, id: string, change: (card: Card) => Card): Experiment {
  return withCards(
    experiment,
    cards(experiment).map(card => (card.id === id ? change(card) : card))
  );
}

export function removeCard(experiment: Experiment, id: string): Experiment {
  return withCards(
    experiment,
    cards(experiment).filter(card => card.id !== id)
  );
}

/** A copy below the card, under an id and a name of its own. */
export function duplicateCard(experiment: Experiment, id: string): [Experiment, Card | null] {
  const at = cards(experiment).findIndex(card => card.id === id);
  if (at < 0) {
    return [experiment, null];
  }
  const original = cards(experiment)[at];
  const copy = { ...original, id: freshId() };
  if (copy.kind === 'save') {
    copy.name = unique(experiment, copy.name.replace(/_\d+$/, ''));
  }
  const next = cards(experiment).slice();
  next.splice(at + 1, 0, copy);
  return [withCards(experiment, next), copy];
}

/** Put a card where another one stands, or by a number of places up or down. */
export function moveCard(experiment: Experiment, id: string, to: { before: string | null } | { by: number }): Experiment {
  const from = cards(experiment).findIndex(card => card.id === id);
  if (from < 0) {
    return experiment;
  }
  const rest = cards(experiment).slice();
  const [card] = rest.splice(from, 1);
  let place: number;
  if ('by' in to) {
    place = Math.max(0, Math.min(rest.length, from + to.by));
  } else {
    place = to.before === null ? rest.length : rest.findIndex(each => each.id === to.before);
  }
  if (place < 0) {
    return experiment;
  }
  rest.splice(place, 0, card);
  return withCards(experiment, rest);
}

/** Change where a card applies. */
export function retarget(card: Card, part: Partial<Target>): Card {
  const at = targetOf(card);
  return at ? ({ ...card, at: { ...at, ...part } } as Card) : card;
}

/** Take a position into a card's positions, or out of them; none left means all. `count` knows what −1 stands for. */
export function togglePosition(card: Card, position: number, count: number): Card {
  const at = targetOf(card);
  if (!at) {
    return card;
  }
  const now = at.positions ?? [];
  const same = (each: number) => (each < 0 ? count + each : each) === position;
  const next = now.some(same) ? now.filter(each => !same(each)) : [...now, position].sort((a, b) => a - b);
  return retarget(card, { positions: next.length ? next : null, index: null });
}
