/** The whole of the side panel, where an experiment is made; it stands in JupyterLab and in a widget alike. */

import { useCallback, useSyncExternalStore } from 'react';
import type { KeyboardEvent } from 'react';
import type { Bench, State } from '../bench';
import { cards } from '../experiment';
import { briefly } from '../tree';
import { Cards } from './cards';
import { Code } from './code';
import type { Beside, Draw } from './code';
import { Prompts } from './prompt';
import { RunBar } from './runbar';
import { Modules } from './tree';

const FIRST_LINES = 'import workbench as wb\nmodel = wb.demo()';
const NONE: never[] = [];

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
  const add = useCallback((kind: string, ...paths: string[]) => bench.add(kind, ...paths), [bench]);
  const onKeyDown = (event: KeyboardEvent) => {
    const command = event.ctrlKey || event.metaKey;
    const typing = event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
    const key = event.key.toLowerCase();
    if (command && key === 'enter') {
      void bench.run();
    } else if (command && !typing && (key === 'y' || (key === 'z' && event.shiftKey))) {
      bench.redo();
    } else if (command && !typing && key === 'z') {
      bench.undo();
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
          {ready && info && (
            <span className="wb-quiet wb-fact" title={`${info.parameters.toLocaleString('en')} parameters, ${info.modules} modules`}>
              {briefly(info.parameters)} · {info.wrapped ? info.device : 'not wrapped'}
            </span>
          )}
          <span className="wb-quiet" title={state.place ?? ''}>
            <bdi>{state.place ?? ''}</bdi>
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
              {each.name} · {each.cls}
              {each.wrapped ? '' : ' · not wrapped'}
            </option>
          ))}
        </select>
      </section>
      {!ready && <Empty phase={state.phase} insert={beside.insert} />}
      {ready && info && !info.wrapped && <Wrap name={info.name} code={state.wrap} insert={beside.insert} />}
      {ready && info?.wrapped && (
        <>
          <Prompts bench={bench} state={state} />
          <Modules
            tree={state.tree}
            shapes={state.shapes}
            how={state.how}
            kinds={state.kinds?.kinds ?? NONE}
            cards={cards(experiment)}
            quiet={state.quiet}
            add={add}
          />
          <Cards bench={bench} state={state} />
        </>
      )}
      <RunBar bench={bench} state={state} />
      {ready && info?.wrapped && <Code bench={bench} state={state} draw={draw} beside={beside} />}
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

/** A plain module: the line that opens it here. */
function Wrap({ name, code, insert }: { name: string; code: string; insert: Beside['insert'] }) {
  return (
    <div className="wb-empty">
      <p>
        <code>{name}</code> is a plain PyTorch module. To look inside it, wrap it:
      </p>
      <pre>{code || '…'}</pre>
      {insert && code && (
        <button className="wb-button" onClick={() => insert(code)}>
          Insert as cell
        </button>
      )}
    </div>
  );
}
