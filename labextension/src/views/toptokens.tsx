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
  // A cell that ran on a server has no clean run beside it: then there is one column.
  const sides: Side[] = [
    { name: 'before', mark: 'wb-before', tokens: before },
    { name: 'after', mark: 'wb-after', tokens: after }
  ].filter(side => side.tokens.length);
  const known = sides.map(side => new Map(side.tokens.map(token => [token.id, token.probability])));
  return (
    <section className="wb-block" aria-label={`Next token${label}`}>
      <header>
        <h2>Next token{label}</h2>
        <span className="wb-quiet">
          {sides.map(side => (
            <span key={side.name}>
              <i className={`wb-key ${side.mark}`} /> {side.name}{' '}
            </span>
          ))}
        </span>
      </header>
      <table className="wb-top" aria-label="Next token probabilities">
        <thead>
          <tr>
            <th scope="col">token</th>
            <td />
            {sides.map(side => (
              <th key={side.name} scope="col" className="wb-of-numbers">
                {side.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sides[0].tokens.map(token => (
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
                {sides.map((side, index) => (
                  <i key={side.name} className={side.mark} style={{ width: `${100 * (known[index].get(token.id) ?? 0)}%` }} />
                ))}
              </td>
              {sides.map((side, index) => (
                <td key={side.name} className="wb-number">
                  {known[index].get(token.id)?.toFixed(3) ?? '–'}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

interface Side {
  name: string;
  mark: string;
  tokens: TopToken[];
}
