/** The main-area tab where a run is read: next tokens before and after, saved values, logs. */

import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import type { State, WorkbenchModel } from '../model';
import { SavedValue } from '../views/heatmap';
import { TopTokens } from '../views/toptokens';

export class ResultsPanel extends ReactWidget {
  constructor(private readonly model: WorkbenchModel) {
    super();
    this.addClass('wb-results');
  }

  render() {
    return <UseSignal signal={this.model.changed}>{() => <Results state={this.model.state} />}</UseSignal>;
  }
}

function Results({ state }: { state: State }) {
  const { result, buffers, logs } = state;
  return (
    <div className="wb-columns">
      <section role="region" aria-label="Results" className="wb-main">
        {result ? (
          <>
            <p className={result.state === 'failed' ? 'wb-fault' : 'wb-headline'}>{result.headline}</p>
            {result.experiment.prompts[0] && <p className="wb-quiet">“{result.experiment.prompts[0]}”</p>}
            {result.fault && <p className="wb-fault">{result.fault.message}</p>}
            <TopTokens before={result.prompts[0]?.before ?? []} after={result.prompts[0]?.after ?? []} />
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
