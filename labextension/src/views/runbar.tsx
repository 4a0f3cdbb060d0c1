/** Run, Cancel, what a run is doing, and what came of the last one in a line. */

import { useEffect, useState } from 'react';
import type { Bench, State } from '../bench';
import { Measured } from './measure';
import { Icon } from './icons';

export function RunBar({ bench, state }: { bench: Bench; state: State }) {
  const { blocked, running } = bench;
  const { run, trouble } = state;
  const ready = state.phase === 'ready';
  const failed = run?.state === 'failed';
  const onCard = trouble?.card && state.experiment.interventions.some(card => card.id === trouble.card);
  return (
    <section className="wb-section wb-run" aria-label="Run">
      {ready && <Measured bench={bench} state={state} />}
      <div className="wb-line">
        <button
          className="wb-primary"
          disabled={running || blocked !== null}
          title={blocked ?? 'Run the experiment (Ctrl+Enter)'}
          onClick={() => void bench.run()}
        >
          Run
        </button>
        <button className="wb-button" disabled={!running} onClick={() => void bench.cancel()}>
          Cancel
        </button>
        {ready && blocked !== null && <span className="wb-quiet">{blocked}</span>}
      </div>
      {running && run && <Progress key={run.run} state={state} />}
      <div role="status" className={failed ? 'wb-fault' : 'wb-headline'}>
        {run ? (failed ? short(run.headline) : run.headline) : ready ? 'Run shows the next tokens before and after, and what was saved.' : ''}
      </div>
      {state.notice && (
        <div role="alert" className="wb-notice">
          {state.notice}
          <button className="wb-icon" aria-label="Dismiss" onClick={() => bench.announce(null)}>
            <Icon sign="close" />
          </button>
        </div>
      )}
      {trouble && (
        <div role="alert" className="wb-fault">
          {onCard ? 'It stopped at a card, which says why.' : trouble.message}
          {trouble.line && <code>{trouble.line}</code>}
          {trouble.detail && (
            <details>
              <summary>details</summary>
              <pre tabIndex={0}>{trouble.detail}</pre>
            </details>
          )}
        </div>
      )}
    </section>
  );
}

/** `run 3 · 0.02 s · failed`: the reason stands below it, or on its card. */
const short = (headline: string): string => headline.replace(/ · failed: .*$/s, ' · failed');

/** What a run is doing, once it has taken a second: passes done of those to do, and the time. */
function Progress({ state }: { state: State }) {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    const began = Date.now();
    const clock = window.setInterval(() => setSeconds(Math.floor((Date.now() - began) / 1000)), 250);
    return () => window.clearInterval(clock);
  }, []);
  if (seconds < 1) {
    return null;
  }
  const { text, done, total } = state.progress ?? { text: 'running', done: 0, total: 1 };
  return (
    <div className="wb-progress">
      <progress aria-label="Progress" value={done > 0 ? done : undefined} max={total} />
      <span className="wb-quiet">
        {text} {Math.min(done + 1, total)}/{total} · {seconds} s
      </span>
    </div>
  );
}
