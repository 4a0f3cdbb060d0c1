/** The interventions: a list of sentences, in the order in which they are done; they are dragged, or moved by keys. */

import { useState } from 'react';
import type { Bench, State } from '../bench';
import { cards, sameCard } from '../experiment';
import type { Card } from '../experiment';
import { CardView } from './card';
import type { Around } from './fields';

export function Cards({ bench, state }: { bench: Bench; state: State }) {
  const { experiment, kinds, faults, selected, result } = state;
  const [dragged, setDragged] = useState<string | null>(null);
  const [over, setOver] = useState<string | null>(null);
  const all = cards(experiment);
  const model = state.models.find(each => each.name === experiment.model);
  const around: Around = {
    tokens: state.tokens?.prompts[0]?.tokens ?? [],
    heads: model?.heads ?? null,
    prompts: experiment.prompts.length,
    tensors: state.tensors
  };
  const ranWith = new Map(result?.experiment.interventions.map(card => [card.id, card]));
  const samePrompts = JSON.stringify(result?.experiment.prompts) === JSON.stringify(experiment.prompts);
  const receipt = (card: Card) =>
    samePrompts && sameCard(ranWith.get(card.id), card)
      ? result?.receipts.find(each => each.card === card.id)
      : undefined;
  // What is wrong with a card before the run, and where a run stopped.
  const told = state.trouble?.card ? [...faults, state.trouble] : faults;
  const code = kinds?.kinds.find(each => each.kind === 'code');
  return (
    <section className={`wb-section${all.length > 1 ? ' wb-making' : ''}`} aria-label="Interventions made">
      <header>
        <h2>Interventions</h2>
        <span className="wb-links">
          {code && (
            <button title="Python of your own, among the others" onClick={() => bench.add('code', '')}>
              + code
            </button>
          )}
          <button disabled={!state.canUndo} title="Undo (Ctrl+Z)" onClick={() => bench.undo()}>
            Undo
          </button>
          <button disabled={!state.canRedo} title="Redo (Ctrl+Shift+Z)" onClick={() => bench.redo()}>
            Redo
          </button>
        </span>
      </header>
      {all.length === 0 && <p className="wb-quiet wb-hint">Point at a module above, then Save or Ablate.</p>}
      <ul
        className="wb-cards"
        aria-label="Interventions"
        onDragOver={event => dragged && event.preventDefault()}
        onDrop={() => {
          if (dragged) {
            bench.move(dragged, { before: over });
          }
          setDragged(null);
          setOver(null);
        }}
      >
        {kinds &&
          all.map(card => (
            <CardView
              key={card.id}
              card={card}
              kinds={kinds}
              around={around}
              state={state}
              faults={told.filter(each => each.card === card.id)}
              receipt={receipt(card)}
              selected={card.id === selected}
              marked={dragged !== null && over === card.id && dragged !== card.id}
              bench={bench}
              drag={{
                start: () => setDragged(card.id),
                over: () => setOver(card.id),
                end: () => {
                  setDragged(null);
                  setOver(null);
                }
              }}
            />
          ))}
        {dragged && <li className={`wb-drop-end${over === null ? ' wb-marked' : ''}`} onDragOver={() => setOver(null)} aria-hidden />}
      </ul>
    </section>
  );
}
