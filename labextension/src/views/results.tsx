/** Where a run is read: next tokens before and after, saved values, logs. */

import { useState, useSyncExternalStore } from 'react';
import type { Bench } from '../bench';
import { RunViews } from './runviews';
import { Selection } from './selection';
import { TopTokens } from './toptokens';

export function Results({ bench }: { bench: Bench }) {
  const { result, logs } = useSyncExternalStore(bench.subscribe, bench.snapshot);
  const [selection] = useState(() => new Selection());
  return (
    <div className="wb-columns">
      <section role="region" aria-label="Results" className="wb-main">
        {result ? (
          <>
            <p className={result.state === 'failed' ? 'wb-fault' : 'wb-headline'}>{result.headline}</p>
            {result.experiment.prompt && <p className="wb-quiet">“{result.experiment.prompt}”</p>}
            {result.fault && <p className="wb-fault">{result.fault.message}</p>}
            <TopTokens before={result.before} after={result.after} />
            {result.saved.map(saved => (
              <p key={saved.name} className="wb-quiet" role="region" aria-label={`Saved ${saved.name}`}>
                {saved.name} · {saved.path || 'model'}.{saved.port} · {saved.text}
              </p>
            ))}
            {result.state === 'done' && <RunViews run={result.run} request={bench.request} selection={selection} />}
          </>
        ) : (
          <p className="wb-empty">No run yet. Run shows the next tokens before and after, and each saved value.</p>
        )}
      </section>
      <section role="region" aria-label="Logs" className="wb-logs">
        <header>
          <h2>Logs</h2>
          <span className="wb-quiet">{logs.length ? `${logs.length} lines` : ''}</span>
        </header>
        {logs.length ? <pre>{logs.join('\n')}</pre> : <p className="wb-quiet">Nothing was logged.</p>}
      </section>
    </div>
  );
}
