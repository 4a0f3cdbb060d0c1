/** The runs so far: read one again, name it, take it back into the panel, or choose two and compare them. */

import { useState } from 'react';
import type { Bench, State } from '../bench';
import type { RunSummary } from '../generated/protocol';
import { Icon } from './icons';

export function History({ bench, state, brief = false }: { bench: Bench; state: State; brief?: boolean }) {
  const [chosen, setChosen] = useState<number[]>([]);
  const [naming, setNaming] = useState<number | null>(null);
  const runs = state.runs.filter(run => run.purpose !== 'verify');
  const pair = chosen.filter(run => runs.some(each => each.run === run));
  const choose = (run: number) =>
    setChosen(pair.includes(run) ? pair.filter(each => each !== run) : [...pair, run].slice(-2));
  return (
    <section className={`wb-history${brief ? ' wb-brief' : ''}`} aria-label="Runs so far">
      <header>
        <h2>History</h2>
        <span className="wb-links">
          <button
            disabled={pair.length !== 2}
            title="Choose two runs, then compare them"
            onClick={() => void bench.compare(Math.min(...pair), Math.max(...pair))}
          >
            Compare
          </button>
        </span>
      </header>
      <ul aria-label="History">
        {runs.map(run => (
          <li
            key={run.run}
            aria-label={`run ${run.run}`}
            aria-current={run.run === state.result?.run || undefined}
            className={run.run === state.result?.run ? 'wb-active' : ''}
          >
            <input
              type="checkbox"
              aria-label={`Choose run ${run.run}`}
              title="Choose two to compare"
              checked={pair.includes(run.run)}
              onChange={() => choose(run.run)}
            />
            {naming === run.run ? (
              <input
                className="wb-field"
                aria-label={`Name of run ${run.run}`}
                autoFocus
                defaultValue={run.title ?? ''}
                placeholder="a name for this run"
                onKeyDown={event => {
                  event.stopPropagation();
                  if (event.key === 'Enter') {
                    void bench.rename(run.run, event.currentTarget.value);
                    setNaming(null);
                  } else if (event.key === 'Escape') {
                    setNaming(null);
                  }
                }}
                onBlur={event => {
                  if (event.currentTarget.value !== (run.title ?? '')) {
                    void bench.rename(run.run, event.currentTarget.value);
                  }
                  setNaming(null);
                }}
              />
            ) : (
              <button
                className="wb-entry"
                title={[run.made, run.headline].filter(Boolean).join('\n')}
                onClick={() => void bench.show(run.run)}
              >
                <b>
                  <span className="wb-unseen">run </span>
                  {run.run}
                  <span className="wb-unseen"> · </span>
                </b>
                <span className="wb-made">
                  {run.title && <b>{run.title}</b>}
                  {run.made || (run.title ? '' : 'the model as it is')}
                </span>
                {!brief && <span className="wb-quiet wb-when">{when(run.at)}</span>}
                <span className={`wb-came ${run.state === 'failed' ? 'wb-fault' : 'wb-quiet'}`}>
                  {[...(run.purpose === 'trace' ? ['%%trace'] : []), rest(run)].join(' · ')}
                </span>
              </button>
            )}
            <span className="wb-card-tools">
              <button className="wb-icon" aria-label={`Rename run ${run.run}`} title="Rename" onClick={() => setNaming(run.run)}>
                <Icon sign="rename" />
              </button>
              <button
                className="wb-icon"
                aria-label={`Open run ${run.run} in the panel`}
                title="Take its prompt and cards into the panel"
                onClick={() => void bench.reopen(run.run)}
              >
                <Icon sign="back" />
              </button>
              {!brief && run.state === 'done' && (
                <button
                  className="wb-icon"
                  aria-label={`Save run ${run.run} as a capsule`}
                  title="Save as a capsule: one file that anyone can run again and compare"
                  onClick={() => void bench.saveCapsule(run.run)}
                >
                  <Icon sign="capsule" />
                </button>
              )}
              {!brief && (
                <button className="wb-icon" aria-label={`Delete run ${run.run}`} title="Delete" onClick={() => void bench.forget(run.run)}>
                  <Icon sign="close" />
                </button>
              )}
            </span>
          </li>
        ))}
      </ul>
      {!runs.length && <p className="wb-quiet">Each run is kept here, and can be read, named and compared.</p>}
    </section>
  );
}

/** The headline without the number that stands before it. */
const rest = (run: RunSummary): string => run.headline.replace(/^[^·]* · /, '');

/** The time of a run of today, the day of an older one. */
function when(at: string): string {
  const time = at ? new Date(at) : null;
  if (!time || Number.isNaN(time.getTime())) {
    return '';
  }
  const today = time.toDateString() === new Date().toDateString();
  return today ? time.toLocaleTimeString([], { timeStyle: 'short' }) : time.toLocaleDateString([], { dateStyle: 'medium' });
}
