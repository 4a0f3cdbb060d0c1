/** The side panel, where an experiment is made: model, prompt, modules, interventions, run, code. */

import type { CodeEditor } from '@jupyterlab/codeeditor';
import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import { useEffect, useState } from 'react';
import type { KeyboardEvent } from 'react';
import { cards } from '../experiment';
import type { State, WorkbenchModel } from '../model';
import { Cards } from '../views/cards';
import { Code } from '../views/code';
import { Prompt } from '../views/prompt';
import { Tree } from '../views/tree';

/** What the panel needs of the notebook beside it. */
export interface Notebook {
  insert(code: string): void;
}

const FIRST_LINES = 'import workbench as wb\nmodel = wb.demo()';

export class WorkbenchPanel extends ReactWidget {
  constructor(
    private readonly model: WorkbenchModel,
    private readonly editors: CodeEditor.Factory,
    private readonly notebook: Notebook
  ) {
    super();
    this.id = 'workbench-panel';
    this.addClass('wb-panel');
    this.addClass('wb-new');
    this.title.label = 'Workbench';
    this.title.caption = 'Workbench: look inside a model';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Workbench');
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    window.setTimeout(() => {
      this.removeClass('wb-new'); // once the layout has given it its width
      this.parent?.fit();
    }, 1000);
  }

  render() {
    return (
      <UseSignal signal={this.model.changed}>
        {() => <Panel model={this.model} state={this.model.state} editors={this.editors} notebook={this.notebook} />}
      </UseSignal>
    );
  }
}

interface Props {
  model: WorkbenchModel;
  state: State;
  editors: CodeEditor.Factory;
  notebook: Notebook;
}

function Panel({ model, state, editors, notebook }: Props) {
  const { experiment } = state;
  const ready = state.phase === 'ready';
  const info = state.models.find(each => each.name === experiment.model);
  const onKeyDown = (event: KeyboardEvent) => {
    const command = event.ctrlKey || event.metaKey;
    const typing = event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
    if (command && event.key === 'Enter') {
      void model.run();
    } else if (command && event.key === 'z' && !typing) {
      if (event.shiftKey) {
        model.redo();
      } else {
        model.undo();
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
          <span className="wb-quiet" title={state.notebook ?? ''}>
            {state.notebook ?? ''}
          </span>
        </header>
        <select
          className="wb-field"
          aria-label="Model"
          disabled={!ready}
          value={ready ? experiment.model : ''}
          onChange={event => model.choose(event.target.value)}
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
            prompt={experiment.prompts[0] ?? ''}
            tokens={state.tokens}
            enabled={info?.tokenizes ?? false}
            card={cards(experiment).find(card => card.id === state.selected)}
            type={prompt => model.type(prompt)}
            pick={position => model.pick(position)}
          />
          <Tree
            rows={state.rows}
            shapes={state.shapes}
            how={state.how}
            cards={cards(experiment)}
            add={(kind, path) => model.add(kind, path)}
          />
          <Cards
            experiment={experiment}
            tokens={state.tokens}
            faults={state.faults}
            selected={state.selected}
            select={id => model.select(id)}
            change={(id, change) => model.change(id, change)}
            remove={id => model.remove(id)}
          />
        </>
      ) : (
        <Empty phase={state.phase} insert={() => notebook.insert(FIRST_LINES)} />
      )}
      <RunBar model={model} state={state} />
      {ready && <Code code={state.code} editors={editors} insert={code => notebook.insert(code)} />}
    </div>
  );
}

function RunBar({ model, state }: { model: WorkbenchModel; state: State }) {
  const { blocked, running } = model;
  return (
    <section className="wb-section wb-run" aria-label="Run">
      <div>
        <button
          className="wb-primary"
          disabled={running || blocked !== null}
          title={blocked ?? 'Run the experiment (Ctrl+Enter)'}
          onClick={() => void model.run()}
        >
          Run
        </button>
        <button className="wb-button" disabled={!running} onClick={() => void model.cancel()}>
          Cancel
        </button>
        {state.phase === 'ready' && blocked !== null && <span className="wb-quiet">{blocked}</span>}
      </div>
      {running && state.run && <Progress key={state.run.run} state={state} />}
      <div role="status" className={state.run?.state === 'failed' ? 'wb-fault' : 'wb-headline'}>
        {state.run?.headline ??
          (state.phase === 'ready' ? 'Run shows the next tokens before and after, and what was saved.' : '')}
      </div>
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

function Empty({ phase, insert }: { phase: State['phase']; insert(): void }) {
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
      <button className="wb-button" onClick={insert}>
        Insert as cell
      </button>
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
