/** What a run is about, as one number: a metric and its answer tokens, clicked or typed. */

import { useState } from 'react';
import type { Bench, State } from '../bench';
import { metricField } from '../form';
import type { Measure } from '../generated/protocol';
import { Choice } from './fields';
import { visible } from './prompt';

/** How many answers a metric takes. */
const ANSWERS: Record<string, number> = { probability: 1, rank: 1, kl: 0 };

export function Measured({ bench, state }: { bench: Bench; state: State }) {
  const [typed, setTyped] = useState('');
  const { kinds, experiment } = state;
  const field = kinds && metricField(kinds);
  const measure = experiment.measure;
  if (!field) {
    return null;
  }
  const choices = [{ value: '', words: 'nothing' }, ...field.choices];
  const choose = (metric: string) =>
    bench.tune({
      measure: metric === '' ? null : { metric: metric as Measure['metric'], answers: (measure?.answers ?? []).slice(0, ANSWERS[metric] ?? 2) }
    });
  return (
    <div role="group" aria-label="Measure">
      <div className="wb-line wb-measure">
        <span className="wb-word">measure</span>
        <Choice label="Metric" value={measure?.metric ?? ''} choices={choices} change={choose} />
      </div>
      {measure && measure.metric !== 'kl' && (
        <div className="wb-line wb-answers">
          {measure.answers.map(answer => (
            <button
              key={answer}
              className="wb-chip"
              aria-label={`Remove answer ${answer}`}
              title="Remove"
              onClick={() => bench.answer(answer)}
            >
              {typeof answer === 'number' ? `#${answer}` : visible(answer)} ✕
            </button>
          ))}
          <input
              className="wb-inline"
              aria-label="Answer token"
              placeholder={measure.answers.length ? 'and …' : 'a token, or click one in Results'}
              spellCheck={false}
              value={typed}
              style={{ width: measure.answers.length ? '8ch' : '26ch' }}
              onChange={event => setTyped(event.target.value)}
              onKeyDown={event => {
                if (event.key === 'Enter' && typed) {
                  event.preventDefault();
                  bench.answer(typed);
                  setTyped('');
                }
              }}
            />
        </div>
      )}
    </div>
  );
}
