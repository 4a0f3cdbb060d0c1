/** The most probable next tokens before and after the interventions, side by side. */

import { visible } from './prompt';
import type { TopToken } from '../generated/protocol';

interface Props {
  before: TopToken[];
  after: TopToken[];
  /** Said after the title, where there are several. */
  label?: string;
  /** Tokens that are measured. */
  answers: (string | number)[];
  answer(token: string): void;
}

export function TopTokens({ before, after, label = '', answers, answer }: Props) {
  if (!before.length && !after.length) {
    return null;
  }
  const changed = new Map(after.map(token => [token.id, token.probability]));
  const rows = before.length ? before : after;
  return (
    <section className="wb-view" aria-label={`Next token${label}`}>
      <header>
        <h2>Next token{label}</h2>
        <span className="wb-quiet">
          <i className="wb-key wb-before" /> before <i className="wb-key wb-after" /> after
        </span>
      </header>
      <table className="wb-top" aria-label="Next token probabilities">
        <thead>
          <tr>
            <th scope="col">token</th>
            <td />
            <th scope="col">before</th>
            <th scope="col">after</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(token => {
            const then = changed.get(token.id);
            return (
              <tr key={token.id}>
                <th scope="row">
                  <button
                    className="wb-answer"
                    aria-pressed={answers.includes(token.token)}
                    title="Measure this answer, or do not"
                    onClick={() => answer(token.token)}
                  >
                    {visible(token.token)}
                  </button>
                </th>
                <td className="wb-bars">
                  <i className="wb-before" style={{ width: `${100 * token.probability}%` }} />
                  <i className="wb-after" style={{ width: `${100 * (then ?? 0)}%` }} />
                </td>
                <td className="wb-number">{token.probability.toFixed(3)}</td>
                <td className="wb-number">{then === undefined ? '–' : then.toFixed(3)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}
