/** The interventions: each card is a sentence, and its fault stands on it in words. */

import { cards, targetOf } from '../experiment';
import type { Card } from '../experiment';
import type { Experiment, Fault } from '../generated/protocol';

interface Props {
  experiment: Experiment;
  tokens: string[];
  faults: Fault[];
  selected: string | null;
  select(id: string | null): void;
  change(id: string, change: (card: Card) => Card): void;
  remove(id: string): void;
}

const TITLES: Record<Card['kind'], [string, string]> = {
  save: ['●', 'Save'],
  ablate: ['⌀', 'Ablate'],
  set: ['=', 'Set'],
  scale: ['×', 'Scale'],
  add_noise: ['~', 'Add noise'],
  steer: ['→', 'Steer'],
  patch: ['⇄', 'Patch'],
  log: ['¶', 'Log'],
  code: ['{}', 'Code']
};

export function Cards({ experiment, tokens, faults, selected, select, change, remove }: Props) {
  const all = cards(experiment);
  return (
    <section className="wb-section" aria-label="Interventions made">
      <header>
        <h2>Interventions</h2>
        <span className="wb-quiet">{all.length ? '' : 'point at a module, then Save output or Ablate'}</span>
      </header>
      <ul className="wb-cards" aria-label="Interventions">
        {all.map(card => {
          const fault = faults.find(each => each.card === card.id);
          const [sign, title] = TITLES[card.kind];
          const state = `${card.id === selected ? ' wb-active' : ''}${fault ? ' wb-faulty' : ''}${card.enabled ? '' : ' wb-off'}`;
          return (
            <li key={card.id} className={`wb-card${state}`} onClick={() => select(card.id)}>
              <div className="wb-card-head">
                <span className={`wb-badge wb-badge-${card.kind}`} aria-hidden>
                  {sign}
                </span>
                <b>{title}</b>
                <code title={targetOf(card)?.path || 'model'}>
                  <bdi>{targetOf(card)?.path || 'model'}</bdi>
                </code>
                <button
                  className="wb-switch"
                  role="switch"
                  aria-label="Enabled"
                  aria-checked={card.enabled}
                  onClick={event => {
                    event.stopPropagation();
                    change(card.id, each => ({ ...each, enabled: !(each.enabled ?? true) }));
                  }}
                />
                <button
                  className="wb-icon"
                  aria-label="Remove"
                  title="Remove"
                  onClick={event => {
                    event.stopPropagation();
                    remove(card.id);
                  }}
                >
                  ✕
                </button>
              </div>
              <div className="wb-card-body">
                {targetOf(card)?.port ?? 'output'} · {positions(card, tokens)} ·{' '}
                {card.kind === 'save' ? (
                  <>
                    as{' '}
                    <input
                      className="wb-inline"
                      aria-label="Name"
                      spellCheck={false}
                      size={Math.max(4, card.name.length)}
                      value={card.name}
                      onChange={event => change(card.id, each => ({ ...each, name: event.target.value }) as Card)}
                    />
                  </>
                ) : card.kind !== 'ablate' ? null : (
                  <>
                    to{' '}
                    <select
                      className="wb-inline"
                      aria-label="Mode"
                      value={card.mode}
                      onChange={event => change(card.id, each => ({ ...each, mode: event.target.value }) as Card)}
                    >
                      <option value="zero">zero</option>
                      <option value="mean">mean over positions</option>
                    </select>
                  </>
                )}
              </div>
              {fault && <div className="wb-fault">{fault.message}</div>}
            </li>
          );
        })}
      </ul>
    </section>
  );
}

function positions(card: Card, tokens: string[]): string {
  const at = targetOf(card)?.positions;
  if (!at) {
    return 'all tokens';
  }
  const named = at.map(position => {
    const token = tokens.at(position);
    return token === undefined ? `${position}` : `${position} (${token.trim() || '␣'})`;
  });
  return `${at.length === 1 ? 'token' : 'tokens'} ${named.join(', ')}`;
}
