/** The prompts and their tokens; with a card selected, clicking a token takes its position into the card. */

import type { Bench, State } from '../bench';
import { cards, targetOf } from '../experiment';
import type { Target, Tokens } from '../generated/protocol';
import { NumberInput } from './fields';
import { Icon } from './icons';

export function Prompts({ bench, state }: { bench: Bench; state: State }) {
  const { experiment, tokens } = state;
  const { prompts, generate } = experiment;
  const enabled = state.models.find(each => each.name === experiment.model)?.tokenizes ?? false;
  const card = cards(experiment).find(each => each.id === state.selected);
  const at = card ? targetOf(card) : null;
  const several = prompts.length > 1;
  const counts = (tokens?.prompts ?? []).map(each => each.tokens.length).filter(Boolean);
  return (
    <section className="wb-section" aria-label="Prompt and tokens">
      <header>
        <h2>Prompt</h2>
        <span className="wb-quiet">{counts.length ? `${counts.join(', ')} tokens` : ''}</span>
        {enabled && (
          <span className="wb-links">
            <button title="Another prompt, in the same pass" onClick={() => bench.addPrompt()}>
              + prompt
            </button>
            {generate === 0 && (
              <button title="Go on for some tokens" onClick={() => bench.tune({ generate: 5 })}>
                generate…
              </button>
            )}
          </span>
        )}
      </header>
      {prompts.map((prompt, index) => (
        <div key={index} className="wb-prompt">
          <textarea
            className="wb-field"
            aria-label={index ? `Prompt ${index + 1}` : 'Prompt'}
            rows={several ? 1 : 2}
            spellCheck={false}
            disabled={!enabled}
            placeholder={enabled ? 'The Eiffel Tower is in the city of' : 'this model takes no text'}
            value={prompt}
            onChange={event => bench.type(event.target.value, index)}
          />
          {several && (
            <button
              className="wb-icon"
              aria-label={`Remove prompt ${index + 1}`}
              title="Remove this prompt"
              onClick={() => bench.removePrompt(index)}
            >
              <Icon sign="close" />
            </button>
          )}
        </div>
      ))}
      {tokens?.prompts.map(
        (each, index) =>
          each.fault && (
            <p key={index} className="wb-fault">
              {several ? `Prompt ${index + 1}: ` : ''}
              {each.fault}
            </p>
          )
      )}
      {tokens && tokens.prompts.some(each => each.tokens.length > 0) && (
        <Aligned
          prompts={tokens.prompts}
          aligned={several ? tokens.aligned : null}
          at={at}
          pick={(position, count) => bench.pick(position, count)}
        />
      )}
      {generate > 0 && (
        <div className="wb-line">
          <span className="wb-word">generate</span>
          <NumberInput
            label="New tokens"
            field={{ step: 1, minimum: 0, unit: '', widget: 'seed', nullable: false }}
            value={generate}
            change={value => bench.tune({ generate: Math.min(4096, value ?? 0) })}
          />
          <span className="wb-word">tokens · temperature</span>
          <NumberInput
            label="Temperature"
            field={{ step: 0.1, minimum: 0, unit: '', widget: 'number', nullable: false }}
            value={experiment.temperature}
            change={value => bench.tune({ temperature: value ?? 0 })}
          />
          <span className="wb-word">seed</span>
          <NumberInput
            label="Seed"
            field={{ step: 1, minimum: 0, unit: '', widget: 'seed', nullable: true }}
            value={experiment.seed}
            change={value => bench.tune({ seed: value })}
          />
          <button className="wb-icon" aria-label="Do not generate" title="Do not generate" onClick={() => bench.tune({ generate: 0 })}>
            <Icon sign="close" />
          </button>
        </div>
      )}
    </section>
  );
}

interface AlignedProps {
  prompts: Tokens[];
  aligned: (number | null)[][] | null;
  at: Target | null;
  pick(position: number, count: number): void;
}

/** A row of chips a prompt; in several, what corresponds stands in one column. */
function Aligned({ prompts, aligned, at, pick }: AlignedProps) {
  const columns = aligned ? Math.max(0, ...aligned.map(row => row.length)) : 0;
  return (
    <div
      className={aligned ? 'wb-aligned' : 'wb-tokens'}
      style={aligned ? { gridTemplateColumns: `repeat(${columns}, max-content)` } : undefined}
      role="group"
      aria-label="Tokens"
    >
      {prompts.map((prompt, index) => {
        const count = prompt.tokens.length;
        const mine = at !== null && (at.prompt === null || at.prompt === index);
        const chosen = new Set(((mine && at?.positions) || []).map(each => (each < 0 ? count + each : each)));
        return prompt.tokens.map((token, position) => {
          const column = aligned?.[index]?.indexOf(position) ?? -1;
          const differs = aligned !== null && column >= 0 && differ(prompts, aligned, column);
          return (
            <button
              key={`${index} ${position}`}
              className={`wb-token${differs ? ' wb-differs' : ''}`}
              style={aligned ? { gridRow: index + 1, gridColumn: column >= 0 ? column + 1 : undefined } : undefined}
              aria-pressed={mine ? chosen.has(position) : undefined}
              aria-label={`${index ? `prompt ${index + 1} ` : ''}token ${position} ${token}`}
              disabled={!mine}
              title={
                at
                  ? `position ${position} (${position - count}): take it into the selected card, or out`
                  : `position ${position}; select a card to pick its positions`
              }
              onClick={() => pick(position, count)}
            >
              {visible(token)}
              <sup>{position}</sup>
            </button>
          );
        });
      })}
    </div>
  );
}

/** Whether the prompts have different tokens in a column. */
function differ(prompts: Tokens[], aligned: (number | null)[][], column: number): boolean {
  const texts = aligned.map((row, index) => {
    const position = row[column];
    return position === null || position === undefined ? null : prompts[index]?.tokens[position];
  });
  return new Set(texts).size > 1;
}

export const visible = (token: string): string => token.replaceAll(' ', '␣').replaceAll('\n', '⏎') || '∅';
