/** The place where runs are read: one run, the history, two runs side by side, and what was logged. */

import { useEffect, useRef, useState, useSyncExternalStore } from 'react';
import type { KeyboardEvent } from 'react';
import type { Bench, State } from '../bench';
import { Capsules } from './capsule';
import { Compare, Differences } from './compare';
import { GeneratedText } from './generated';
import { History } from './history';
import { Logs } from './logs';
import { RunViews } from './runviews';
import type { Keep } from './runviews';
import { Selection } from './selection';
import { TopTokens } from './toptokens';

type Tab = 'results' | 'history' | 'compare' | 'logs';

interface Props {
  bench: Bench;
  /** Told what is to be kept of the run that is read, where it is kept somewhere. */
  keep?: Keep;
}

export function Results({ bench, keep }: Props) {
  const state = useSyncExternalStore(bench.subscribe, bench.snapshot);
  const [tab, setTab] = useState<Tab>('results');
  const { result, compared, runs, logs } = state;
  const list = useRef<HTMLDivElement>(null);
  const last = useRef(compared);
  useEffect(() => {
    if (compared && compared !== last.current) {
      setTab('compare');
    }
    last.current = compared;
  }, [compared]);

  const tabs: [Tab, string][] = [
    ['results', result ? `Results · ${result.title ?? `run ${result.run}`}` : 'Results'],
    ['history', runs.length ? `History · ${runs.length}` : 'History'],
    ['compare', compared ? `Compare ${compared.left.run} ⇄ ${compared.right.run}` : 'Compare'],
    ['logs', logs.length ? `Logs · ${logs.length}` : 'Logs']
  ];
  const onKeyDown = (event: KeyboardEvent) => {
    const at = tabs.findIndex(([each]) => each === tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      const [next] = tabs[(to + tabs.length) % tabs.length];
      setTab(next);
      list.current?.querySelector<HTMLElement>(`#wb-tab-${next}`)?.focus();
    }
  };
  return (
    <div className="wb-reading">
      <div className="wb-subtabs" role="tablist" aria-label="Runs" ref={list} onKeyDown={onKeyDown}>
        {tabs.map(([each, title]) => (
          <button
            key={each}
            id={`wb-tab-${each}`}
            role="tab"
            aria-selected={tab === each}
            aria-controls="wb-tabpanel"
            tabIndex={tab === each ? 0 : -1}
            onClick={() => setTab(each)}
          >
            {title}
          </button>
        ))}
      </div>
      <div className="wb-columns" role="tabpanel" id="wb-tabpanel" aria-labelledby={`wb-tab-${tab}`}>
        {tab === 'results' && (
          <>
            <OneRun bench={bench} state={state} keep={keep} />
            <aside className="wb-beside" aria-label="Logs and history">
              <Logs logs={logs} />
              <History bench={bench} state={state} brief />
            </aside>
          </>
        )}
        {tab === 'history' && (
          <div className="wb-main" tabIndex={0}>
            <History bench={bench} state={state} />
            <Capsules bench={bench} state={state} />
          </div>
        )}
        {tab === 'compare' && <Compare compared={compared} bench={bench} />}
        {tab === 'logs' && (
          <div className="wb-main" tabIndex={0}>
            <Logs logs={logs} />
          </div>
        )}
      </div>
    </div>
  );
}

function OneRun({ bench, state, keep }: Props & { state: State }) {
  const { result } = state;
  const [selection] = useState(() => new Selection());
  const answers = state.experiment.measure?.answers ?? [];
  return (
    <section role="region" aria-label="Results" className="wb-main" tabIndex={0}>
      {result ? (
        <>
          <p className={result.state === 'failed' ? 'wb-fault' : 'wb-headline'}>{result.headline}</p>
          {result.fault && result.fault.detail && (
            <details className="wb-fault">
              <summary>details</summary>
              <pre tabIndex={0}>{result.fault.detail}</pre>
            </details>
          )}
          {result.comparison && <Differences comparison={result.comparison} />}
          <div className="wb-runs">
            {result.prompts.map((prompt, index) => (
              <div key={index} className="wb-of-prompt">
                {prompt.prompt && (
                  <p className="wb-quiet" title={prompt.prompt}>
                    {result.prompts.length > 1 ? `prompt ${index + 1}: ` : ''}“{prompt.prompt}”
                  </p>
                )}
                <TopTokens
                  before={prompt.before}
                  after={prompt.after}
                  label={result.prompts.length > 1 ? ` · prompt ${index + 1}` : ''}
                  answers={answers}
                  answer={token => bench.answer(token)}
                />
                <Numbers result={result} index={index} />
                <GeneratedText prompt={prompt} label={result.prompts.length > 1 ? ` · prompt ${index + 1}` : ''} />
              </div>
            ))}
          </div>
          {result.state === 'done' && <RunViews result={result} request={bench.request} selection={selection} keep={keep} />}
        </>
      ) : (
        <p className="wb-empty">No run yet. Run shows the next tokens before and after, and each saved value.</p>
      )}
    </section>
  );
}

const METRICS: Record<string, string> = {
  logit_difference: 'logit difference',
  probability: 'probability',
  rank: 'rank',
  kl: 'KL'
};

/** The measure before and after, and how far the prediction moved. */
function Numbers({ result, index }: { result: NonNullable<State['result']>; index: number }) {
  const { kl, measure_before, measure_after } = result.prompts[index];
  const measure = result.experiment.measure;
  const parts: string[] = [];
  if (measure && measure.metric !== 'kl' && measure_after !== null) {
    const answers = measure.answers.map(answer => `${answer}`.trim()).join(' − ');
    const before = measure_before === null ? '' : `${shown(measure_before)} → `;
    parts.push(`${METRICS[measure.metric]} ${answers}: ${before}${shown(measure_after)}`);
  }
  if (kl !== null && kl !== undefined) {
    parts.push(`KL ${shown(kl)} nats`);
  }
  return parts.length ? <p className="wb-quiet wb-measured">{parts.join(' · ')}</p> : null;
}

export const shown = (value: number): string =>
  Number.isInteger(value) ? `${value}` : Math.abs(value) >= 0.01 && Math.abs(value) < 1e5 ? value.toFixed(2) : value.toExponential(1);
