/** The whole of the side panel, where an experiment is made; it stands in JupyterLab and in a widget alike. */

import { useEffect, useState, useSyncExternalStore } from 'react';
import type { KeyboardEvent } from 'react';
import type { Bench, State } from '../bench';
import { cards } from '../experiment';
import { Cards } from './cards';
import { Code } from './code';
import type { Draw } from './code';
import { Prompt } from './prompt';
import { Tree } from './tree';

/** What the panel needs of what it stands beside; null where there is no notebook to insert into. */
export interface Beside {
  insert: ((code: string) => void) | null;
}

const FIRST_LINES = 'import workbench as wb\nmodel = wb.demo()';

interface Props {
  bench: Bench;
  draw: Draw;
  beside: Beside;
}

export function Panel({ bench, draw, beside }: Props) {
  const state = useSyncExternalStore(bench.subscribe, bench.snapshot);
  const { experiment } = state;
  const ready = state.phase === 'ready';
  const info = state.models.find(each => each.name === experiment.model);
  const onKeyDown = (event: KeyboardEvent) => {
    const command = event.ctrlKey || event.metaKey;
    const typing = event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
    if (command && event.key === 'Enter') {
      void bench.run();
    } else if (command && event.key === 'z' && !typing) {
      if (event.shiftKey) {
        bench.redo();
      } else {
        bench.undo();
      }
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div className="wb-body" onKeyDown={onKeyDown}>
      <section className="wb-section" aria-label="Model and kernel">
        <header>
          <h2>Model</h2>
          <span className="wb-quiet" title={state.place ?? ''}>
            {state.place ?? ''}
          </span>
        </header>
        <select
          className="wb-field"
          aria-label="Model"
          disabled={!ready}
          value={ready ? experiment.model : ''}
          onChange={event => bench.choose(event.target.value)}
        >
          {!ready && <option value="">no model</option>}
          {state.models.map(each => (
            <option key={each.name} value={each.name}>
              {each.name} · {each.cls} · {count(each.parameters)} · {each.device}
            </option>
          ))}
        </select>
      </section>
      {ready ? (
        <>
          <Prompt
            prompt={experiment.prompt ?? ''}
            tokens={state.tokens}
            enabled={info?.tokenizes ?? false}
            card={cards(experiment).find(card => card.id === state.selected)}
            type={prompt => bench.type(prompt)}
            pick={position => bench.pick(position)}
          />
          <Tree
            rows={state.rows}
            shapes={state.shapes}
            how={state.how}
            cards={cards(experiment)}
            add={(kind, path) => bench.add(kind, path)}
          />
          <Cards
            experiment={experiment}
            tokens={state.tokens}
            faults={state.faults}
            selected={state.selected}
            select={id => bench.select(id)}
            change={(id, change) => bench.change(id, change)}
            remove={id => bench.remove(id)}
          />
        </>
      ) : (
        <Empty phase={state.phase} insert={beside.insert} />
      )}
      <RunBar bench={bench} state={state} />
      {ready && <Code code={state.code} draw={draw} insert={beside.insert} />}
    </div>
  );
}

function RunBar({ bench, state }: { bench: Bench; state: State }) {
  const { blocked, running } = bench;
  return (
    <section className="wb-section wb-run" aria-label="Run">
      <div>
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
        {state.phase === 'ready' && blocked !== null && <span className="wb-quiet">{blocked}</span>}
      </div>
      {running && state.run && <Progress key={state.run.run} state={state} />}
      <div role="status" className={state.run?.state === 'failed' ? 'wb-fault' : 'wb-headline'}>
        {state.run?.headline ??
          (state.phase === 'ready' ? 'Run shows the next tokens before and after, and what was saved.' : '')}
      </div>
      {state.notice && (
        <div role="alert" className="wb-notice">
          {state.notice}
        </div>
      )}
      {state.trouble && (
        <div role="alert" className="wb-fault">
          {state.trouble.message}
          {state.trouble.line && <code>{state.trouble.line}</code>}
          {state.trouble.detail && (
            <details>
              <summary>details</summary>
              <pre>{state.trouble.detail}</pre>
            </details>
          )}
        </div>
      )}
    </section>
  );
}

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
        {text} {done + 1}/{total} · {seconds} s
      </span>
    </div>
  );
}

function Empty({ phase, insert }: { phase: State['phase']; insert: Beside['insert'] }) {
  if (phase === 'no notebook') {
    return <p className="wb-empty">Open a notebook: the models in its kernel appear here.</p>;
  }
  if (phase === 'no kernel') {
    return <p className="wb-empty">Waiting for the notebook’s kernel …</p>;
  }
  return (
    <div className="wb-empty">
      <p>{phase === 'no model' ? 'No model in this kernel yet. Run these two lines:' : 'To begin, run these two lines:'}</p>
      <pre>{FIRST_LINES}</pre>
      {insert && (
        <button className="wb-button" onClick={() => insert(FIRST_LINES)}>
          Insert as cell
        </button>
      )}
      <p className="wb-quiet">Any wb.NNsight(module) or wb.LanguageModel(…) with a name of its own appears here.</p>
    </div>
  );
}

function count(parameters: number): string {
  for (const [size, unit] of [[1e9, 'B'], [1e6, 'M'], [1e3, 'k']] as const) {
    if (parameters >= size) {
      return `${(parameters / size).toFixed(1)}${unit}`;
    }
  }
  return `${parameters}`;
}
