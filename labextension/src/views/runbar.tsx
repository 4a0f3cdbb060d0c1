/** Run, Cancel, what a run is doing, and what came of the last one in a line. */

import { useEffect, useState } from 'react';
import type { Bench, State } from '../bench';
import { Measured } from './measure';
import { Icon } from './icons';

const LOOK = 5000; // ms between two looks at the server

export function RunBar({ bench, state }: { bench: Bench; state: State }) {
  const { blocked, running } = bench;
  const { run, trouble } = state;
  const held = running || blocked !== null;
  const ready = state.phase === 'ready';
  const failed = run?.state === 'failed';
  const onCard = trouble?.card && state.experiment.interventions.some(card => card.id === trouble.card);
  return (
    <section className="wb-section wb-run" aria-label="Run">
      {ready && <Measured bench={bench} state={state} />}
      <div className="wb-line">
        <button
          className="wb-primary"
          disabled={running || (blocked !== null && !bench.unjudged)}
          aria-disabled={held}
          title={blocked ?? 'Run the experiment (Ctrl+Enter)'}
          onClick={() => void bench.run()}
        >
          Run
        </button>
        <button className="wb-button" disabled={!running} onClick={() => void bench.cancel()}>
          Cancel
        </button>
        {ready && (
          <span className="wb-tabs wb-where" role="group" aria-label="Where it runs">
            {['Local', 'Remote'].map(name => (
              <button
                key={name}
                aria-pressed={state.remote === (name === 'Remote')}
                disabled={running}
                title={name === 'Local' ? 'Run in this kernel' : 'Run on the server that wb.CONFIG names'}
                onClick={() => bench.runThere(name === 'Remote')}
              >
                {name}
              </button>
            ))}
          </span>
        )}
      </div>
      {ready && blocked !== null && <p className="wb-quiet wb-why">{blocked}</p>}
      {ready && state.remote && <There bench={bench} state={state} />}
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

/** The server: whether it hosts the model, and how many jobs wait there; asked again while it is shown. */
function There({ bench, state }: { bench: Bench; state: State }) {
  useEffect(() => {
    const clock = window.setInterval(() => document.hidden || bench.lookThere(), LOOK);
    return () => window.clearInterval(clock);
  }, [bench]);
  const { server } = state;
  if (!server) {
    return <p className="wb-quiet">asking the server …</p>;
  }
  const waiting = server.models.reduce((sum, each) => sum + each.queued, 0);
  const jobs = waiting ? `${waiting} ${waiting === 1 ? 'job' : 'jobs'} queued` : 'no queue';
  return (
    <div className="wb-there" role="group" aria-label="Server">
      <p className={server.fault ? 'wb-fault' : 'wb-quiet'}>
        {server.models.length > 0 && `${server.host.replace(/^https?:\/\//, '')} · ${jobs}${server.fault ? ' · ' : ''}`}
        {server.fault}
      </p>
      {server.models.length > 0 && (
        <ul aria-label="Models of the server">
          {server.models.map(each => (
            <li key={each.key} className={each.key === server.hosts ? 'wb-good' : 'wb-quiet'}>
              <bdi>{each.key}</bdi>
              {each.loaded ? '' : ' · on disk'}
              {each.queued > 0 && ` · ${each.queued} queued`}
            </li>
          ))}
        </ul>
      )}
    </div>
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
      <progress aria-label="Progress" value={done > 0 ? done : undefined} max={total || undefined} />
      <span className="wb-quiet">
        {text}
        {total > 0 && ` ${Math.min(done + 1, total)}/${total}`} · {seconds} s
      </span>
    </div>
  );
}
