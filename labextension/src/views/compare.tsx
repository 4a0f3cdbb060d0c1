/** Two runs side by side: in what they were made differently, and in what they came out differently. */

import type { Bench, Compared } from '../bench';
import type { Comparison, RunResult } from '../generated/protocol';
import { visible } from './prompt';

export function Compare({ compared, bench }: { compared: Compared | null; bench: Bench }) {
  if (!compared) {
    return <p className="wb-empty wb-main">Choose two runs in the history, then Compare.</p>;
  }
  const { comparison, left, right } = compared;
  return (
    <section role="region" aria-label="Comparison" className="wb-main" tabIndex={0}>
      <p className="wb-headline">{comparison.text}</p>
      <div className="wb-pair">
        <Side run={left} bench={bench} mark="wb-before" />
        <Side run={right} bench={bench} mark="wb-after" />
      </div>
      <Words title="The experiments differ in" words={comparison.experiment} />
      <Words title="Around them" words={comparison.environment} />
      <div className="wb-runs">
        {comparison.tokens.map((_, index) => (
          <Tokens key={index} compared={compared} index={index} />
        ))}
      </div>
      <Differences comparison={comparison} />
    </section>
  );
}

/** What each saved value, and each prediction, differs in. */
export function Differences({ comparison }: { comparison: Comparison }) {
  return comparison.values.length ? (
    <section className="wb-block" aria-label="Saved values compared">
      <header>
        <h2>Value by value</h2>
      </header>
      <table className="wb-top">
        <thead>
          <tr>
            <th scope="col">name</th>
            <th scope="col" className="wb-of-numbers">
              largest difference
            </th>
            <th scope="col" className="wb-of-words">
              in words
            </th>
          </tr>
        </thead>
        <tbody>
          {comparison.values.map(value => (
            <tr key={value.name}>
              <th scope="row">
                <code>{value.name}</code>
              </th>
              <td className="wb-number">{value.equal ? 'equal' : (value.difference?.toPrecision(3) ?? '–')}</td>
              <td>{value.text}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  ) : null;
}

function Side({ run, bench, mark }: { run: RunResult; bench: Bench; mark: string }) {
  return (
    <p>
      <i className={`wb-key ${mark}`} />{' '}
      <button className="wb-entry" title="Read this run" onClick={() => void bench.show(run.run)}>
        <b>{run.title ?? `run ${run.run}`}</b> <span className="wb-quiet">{run.headline}</span>
      </button>
    </p>
  );
}

function Words({ title, words }: { title: string; words: string[] }) {
  return words.length ? (
    <div className="wb-block">
      <p className="wb-quiet">{title}</p>
      <ul className="wb-differing">
        {words.map(each => (
          <li key={each}>{each}</li>
        ))}
      </ul>
    </div>
  ) : null;
}

/** The tokens that either run thinks probable, as both left them. */
function Tokens({ compared, index }: { compared: Compared; index: number }) {
  const { comparison, left, right } = compared;
  const rows = comparison.tokens[index] ?? [];
  if (!rows.length) {
    return null;
  }
  const text = left.prompts[index]?.prompt ?? right.prompts[index]?.prompt ?? '';
  return (
    <section className="wb-block" aria-label={`Next token of both runs${index ? `, prompt ${index + 1}` : ''}`}>
      <header>
        <h2>Next token</h2>
        <span className="wb-quiet">“{text}”</span>
      </header>
      <table className="wb-top" aria-label="Next token of both runs">
        <thead>
          <tr>
            <th scope="col">token</th>
            <td />
            {[left, right].map(run => (
              <th key={run.run} scope="col" className="wb-of-numbers">
                {run.title ?? `run ${run.run}`}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(row => (
            <tr key={row.id}>
              <th scope="row">
                <code>{visible(row.token)}</code>
              </th>
              <td className="wb-bars">
                <i className="wb-before" style={{ width: `${100 * (row.left ?? 0)}%` }} />
                <i className="wb-after" style={{ width: `${100 * (row.right ?? 0)}%` }} />
              </td>
              <td className="wb-number">{row.left?.toFixed(3) ?? '–'}</td>
              <td className="wb-number">{row.right?.toFixed(3) ?? '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
