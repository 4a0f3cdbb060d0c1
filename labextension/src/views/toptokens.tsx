/** The most probable next tokens before and after the interventions, side by side. */

import type { TopToken } from '../generated/protocol';

interface Props {
  before: TopToken[];
  after: TopToken[];
}

export function TopTokens({ before, after }: Props) {
  if (!before.length && !after.length) {
    return null;
  }
  const changed = new Map(after.map(token => [token.id, token.probability]));
  const rows = before.length ? before : after;
  return (
    <section className="wb-view" aria-label="Next token">
      <header>
        <h2>Next token</h2>
        <span className="wb-quiet">
          <i className="wb-key wb-before" /> before <i className="wb-key wb-after" /> after
        </span>
      </header>
      <table className="wb-top" aria-label="Next token probabilities">
        <thead>
          <tr>
            <th scope="col">token</th>
            <th scope="col" aria-label="bars" />
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
                  <code>{token.token.replace(/^ /, '␣')}</code>
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
