/** Logits: the likeliest next tokens after a position, before and after, with rank and probability. */

import type { LogitsView } from '../../generated/protocol';
import type { ViewProps } from '../asking';
import { Frame } from '../frame';
import { brief, chance, seen, summaryOf } from '../numbers';
import { useSelection } from '../selection';

export function Logits({ header, buffers, selection, change }: ViewProps<LogitsView>) {
  const chosen = useSelection(selection);
  const at = header.at.find(each => each.position === chosen.position) ?? header.at.at(-1);
  const both = at?.top.some(each => each.before !== null) ?? false;
  const largest = Math.max(...header.at.map(each => each.kl ?? 0), 1e-9);
  return (
    <Frame
      header={header}
      buffers={buffers}
      quiet={`top of ${header.vocabulary.toLocaleString('en')} tokens`}
      picture={at ? { at, after: header.tokens[at.position] } : null}
      change={change}
      tools={
        both && (
          <span className="wb-quiet">
            <i className="wb-key wb-before" /> before <i className="wb-key wb-after" /> after
          </span>
        )
      }
    >
      {header.at.length > 1 && (
        <div className="wb-strip" role="group" aria-label="Position">
          {header.at.map(each => (
            <button
              key={each.position}
              aria-pressed={each.position === at?.position}
              aria-label={`after token ${each.position} ${header.tokens[each.position] ?? ''}`}
              title={each.kl === null ? `position ${each.position}` : `position ${each.position} · KL ${brief(each.kl)} nats`}
              onClick={() => selection.choose({ position: each.position })}
            >
              {seen(header.tokens[each.position] ?? `${each.position}`)}
              {each.kl !== null && <i className="wb-after" style={{ height: `${(100 * each.kl) / largest}%` }} />}
            </button>
          ))}
        </div>
      )}
      {at && (
        <>
          <table className="wb-top" aria-label={`Next tokens after position ${at.position}`}>
            <thead>
              <tr>
                <th scope="col">token</th>
                <td />
                {both && <th scope="col">before</th>}
                <th scope="col">{both ? 'after' : 'probability'}</th>
                <th scope="col">rank</th>
              </tr>
            </thead>
            <tbody>
              {at.top.map(each => (
                <tr key={each.id}>
                  <th scope="row" title={`id ${each.id}`}>
                    <code>{seen(each.token)}</code>
                  </th>
                  <td className="wb-bars">
                    {both && <i className="wb-before" style={{ width: `${100 * (each.before ?? 0)}%` }} />}
                    <i className={both ? 'wb-after' : 'wb-before'} style={{ width: `${100 * each.after}%` }} />
                  </td>
                  {both && <td className="wb-number">{chance(each.before)}</td>}
                  <td className="wb-number">{chance(each.after)}</td>
                  <td className="wb-number wb-rank">
                    {both && each.before_rank !== each.after_rank ? `${each.before_rank ?? '–'} → ${each.after_rank}` : each.after_rank}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
          <p className="wb-quiet wb-numbers">
            {summaryOf(at, header.tokens[at.position])}
          </p>
        </>
      )}
    </Frame>
  );
}
