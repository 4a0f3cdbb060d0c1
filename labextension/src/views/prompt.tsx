/** The prompt and its tokens; with a card selected, clicking a token takes its position into the card. */

import { targetOf } from '../experiment';
import type { Card } from '../experiment';

interface Props {
  prompt: string;
  tokens: string[];
  enabled: boolean;
  card: Card | undefined;
  type(prompt: string): void;
  pick(position: number): void;
}

export function Prompt({ prompt, tokens, enabled, card, type, pick }: Props) {
  const chosen = new Set(((card && targetOf(card))?.positions ?? []).map(position => (position < 0 ? tokens.length + position : position)));
  return (
    <section className="wb-section" aria-label="Prompt and tokens">
      <header>
        <h2>Prompt</h2>
        <span className="wb-quiet">{tokens.length ? `${tokens.length} tokens` : ''}</span>
      </header>
      <textarea
        className="wb-field"
        aria-label="Prompt"
        rows={2}
        spellCheck={false}
        disabled={!enabled}
        placeholder={enabled ? 'The Eiffel Tower is in the city of' : 'this model takes no text'}
        value={prompt}
        onChange={event => type(event.target.value)}
      />
      {tokens.length > 0 && (
        <div className="wb-tokens" role="group" aria-label="Tokens">
          {tokens.map((token, position) => (
            <button
              key={position}
              className="wb-token"
              aria-pressed={card ? chosen.has(position) : undefined}
              aria-label={`token ${position} ${token}`}
              disabled={!card}
              title={card ? `position ${position}: take it into the selected card, or out` : 'select a card to pick its positions'}
              onClick={() => pick(position)}
            >
              {token.replaceAll(' ', '␣').replaceAll('\n', '⏎')}
              <sup>{position}</sup>
            </button>
          ))}
        </div>
      )}
    </section>
  );
}
