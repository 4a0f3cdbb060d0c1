/** Edits of an experiment, each giving a new one. The experiment is the kernel's data; here it is only changed. */

import type { Experiment, Target } from './generated/protocol';

export type Card = NonNullable<Experiment['interventions']>[number];

export const empty = (model = ''): Experiment => ({
  version: 2,
  model,
  prompts: [''],
  generate: 0,
  temperature: 0,
  seed: null,
  measure: null,
  interventions: []
});

/** Where a card applies; null for code, which applies nowhere in particular. */
export const targetOf = (card: Card): Target | null => ('at' in card ? card.at : null);

export const cards = (experiment: Experiment): Card[] => experiment.interventions ?? [];

export function withCards(experiment: Experiment, next: Card[]): Experiment {
  return { ...experiment, interventions: next };
}

let made = 0;

function freshId(): string {
  made += 1;
  return `${Date.now().toString(36)}-${made}`;
}

export function addCard(experiment: Experiment, kind: Card['kind'], path: string): [Experiment, Card] {
  // What is left out has the kind's own default, which the kernel knows.
  const card = {
    id: freshId(),
    at: { path, port: 'output', positions: null },
    enabled: true,
    kind,
    ...(kind === 'save' ? { name: freshName(experiment, path) } : {})
  } as Card;
  return [withCards(experiment, [...cards(experiment), card]), card];
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
  const base = /^[a-zA-Z_]/.test(short) ? short : `output${short ? `_${short}` : ''}`;
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

/** Take a position into a card's positions, or out of them; none left means all. */
export function togglePosition(experiment: Experiment, id: string, position: number): Experiment {
  return changeCard(experiment, id, card => {
    const at = targetOf(card);
    if (at === null) {
      return card;
    }
    const now = at.positions ?? [];
    const next = now.includes(position) ? now.filter(each => each !== position) : [...now, position].sort((a, b) => a - b);
    return { ...card, at: { ...at, positions: next.length ? next : null } } as Card;
  });
}
