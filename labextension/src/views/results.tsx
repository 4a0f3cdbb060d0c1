/** Where a run is read: next tokens before and after, saved values, logs. */

import { useSyncExternalStore } from 'react';
import type { Bench } from '../bench';
import { SavedValue } from './heatmap';
import { TopTokens } from './toptokens';

export function Results({ bench }: { bench: Bench }) {
  const { result, buffers, logs } = useSyncExternalStore(bench.subscribe, bench.snapshot);
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
              <SavedValue key={saved.name} saved={saved} data={saved.view ? buffers[saved.view.buffer] : undefined} />
            ))}
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
