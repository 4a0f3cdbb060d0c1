/**
 * The panel's state: which notebook and kernel it looks at, the experiment, and what the kernel last said of it.
 *
 * One immutable `state`; every change goes through `set`. Of each kind of request only the newest answer is kept.
 */

import type { NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import type { IStateDB } from '@jupyterlab/statedb';
import { Signal } from '@lumino/signaling';
import { connect } from './kernel';
import { addCard, changeCard, empty, removeCard, togglePosition } from './experiment';
import type { Card } from './experiment';
import { Disconnected, KernelFault } from './transport';
import type { Answer, Event, Method, Transport } from './transport';
import type { Experiment, Fault, Methods, ModelInfo, RunResult, RunSummary } from './generated/protocol';
import { rowsOf, shapesOf } from './rows';
import type { ModuleRow, Shape } from './rows';

export interface State {
  phase: 'no notebook' | 'no kernel' | 'no workbench' | 'no model' | 'ready';
  notebook: string | null;
  models: ModelInfo[];
  rows: ModuleRow[];
  shapes: Record<string, Shape>;
  how: string;
  tokens: string[];
  experiment: Experiment;
  selected: string | null;
  code: string;
  faults: Fault[];
  run: RunSummary | null;
  progress: { text: string; done: number; total: number } | null;
  result: RunResult | null;
  buffers: DataView[];
  logs: string[];
  trouble: Fault | null;
}

const START: State = {
  phase: 'no notebook',
  notebook: null,
  models: [],
  rows: [],
  shapes: {},
  how: '',
  tokens: [],
  experiment: empty(),
  selected: null,
  code: '',
  faults: [],
  run: null,
  progress: null,
  result: null,
  buffers: [],
  logs: [],
  trouble: null
};

const TYPING = 150; // ms without a keystroke before the kernel is asked

export class WorkbenchModel {
  readonly changed = new Signal<this, void>(this);
  readonly ran = new Signal<this, void>(this);
  state: State = START;

  private panel: NotebookPanel | null = null;
  private kernel: Kernel.IKernelConnection | null = null;
  private transport: Transport | null = null;
  private connecting = 0;
  private trying = false;
  private worthTrying = false; // something was run since the last try: `workbench` may be imported now
  private newest = new Map<Method, number>();
  private past: Experiment[] = [];
  private future: Experiment[] = [];
  private typing: number | undefined;
  private treeOf = '';

  constructor(private readonly store: IStateDB) {}

  // ---- which notebook, which kernel

  /** Look at another notebook, or at none. */
  async look(panel: NotebookPanel | null): Promise<void> {
    if (panel === this.panel) {
      return;
    }
    this.panel?.sessionContext.kernelChanged.disconnect(this.onKernelChanged, this);
    this.panel = panel;
    this.leaveKernel();
    this.past = [];
    this.future = [];
    if (!panel) {
      this.state = START;
      this.changed.emit();
      return;
    }
    const path = panel.context.path;
    this.set({ ...START, phase: 'no kernel', notebook: path });
    panel.sessionContext.kernelChanged.connect(this.onKernelChanged, this);
    const kept = (await this.store.fetch(key(path))) as unknown as Experiment | undefined;
    if (this.panel !== panel) {
      return;
    }
    if (kept?.version === 2) {
      this.set({ experiment: kept });
    }
    await panel.sessionContext.ready;
    if (this.panel === panel) {
      this.enterKernel(panel.sessionContext.session?.kernel ?? null);
    }
  }

  private onKernelChanged(): void {
    this.enterKernel(this.panel?.sessionContext.session?.kernel ?? null);
  }

  private enterKernel(kernel: Kernel.IKernelConnection | null): void {
    if (kernel !== null && kernel === this.kernel) {
      return;
    }
    this.leaveKernel();
    this.kernel = kernel;
    if (kernel) {
      kernel.statusChanged.connect(this.onStatus, this);
      kernel.iopubMessage.connect(this.onMessage, this);
      this.worthTrying = true;
      void this.connect();
    }
  }

  private leaveKernel(): void {
    this.kernel?.statusChanged.disconnect(this.onStatus, this);
    this.kernel?.iopubMessage.disconnect(this.onMessage, this);
    this.kernel = null;
    this.cut('no kernel');
  }

  /** Forget what the kernel said; what the person made stays. */
  private cut(phase: State['phase']): void {
    this.transport?.dispose();
    this.transport = null;
    this.connecting += 1;
    this.treeOf = '';
    this.set({
      ...START,
      phase,
      notebook: this.state.notebook,
      experiment: this.state.experiment,
      selected: this.state.selected,
      result: this.state.result,
      buffers: this.state.buffers,
      logs: this.state.logs
    });
  }

  private onStatus(_: Kernel.IKernelConnection, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting' || status === 'dead' || status === 'terminating') {
      this.worthTrying = true;
      this.cut('no kernel');
    } else if (status === 'idle') {
      void this.connect();
    }
  }

  private onMessage(_: Kernel.IKernelConnection, message: KernelMessage.IIOPubMessage): void {
    if (message.header.msg_type === 'execute_input') {
      this.worthTrying = true;
    }
  }

  private async connect(): Promise<void> {
    const kernel = this.kernel;
    // Trying makes the kernel busy and idle again, so an idle kernel alone is no reason to try.
    if (!kernel || kernel.status !== 'idle' || this.transport || this.trying || !this.worthTrying) {
      return;
    }
    this.trying = true;
    this.worthTrying = false;
    const mine = ++this.connecting;
    try {
      const transport = await connect(
        kernel,
        events => this.onEvents(events),
        () => {
          if (mine === this.connecting) {
            this.cut('no workbench');
          }
        }
      );
      if (mine !== this.connecting) {
        transport.dispose();
        return;
      }
      this.transport = transport;
      await this.refreshModels();
      await this.restoreRun();
    } catch (error) {
      if (mine === this.connecting) {
        this.set({ phase: 'no workbench' });
        if (!(error instanceof Disconnected)) {
          this.tell(error);
        }
      }
    } finally {
      this.trying = false;
    }
    if (!this.transport && this.worthTrying) {
      void this.connect();
    }
  }

  // ---- asking the kernel

  /** Ask, and act on the answer unless a newer request of the kind has been made meanwhile. */
  private async ask<M extends Method>(
    method: M,
    params: Methods[M]['params'],
    use: (answer: Answer<M>) => void
  ): Promise<void> {
    const transport = this.transport;
    if (!transport) {
      return;
    }
    const number = (this.newest.get(method) ?? 0) + 1;
    this.newest.set(method, number);
    try {
      const answer = await transport.request(method, params);
      if (this.newest.get(method) === number && transport === this.transport) {
        use(answer);
      }
    } catch (error) {
      if (this.newest.get(method) === number && !(error instanceof Disconnected)) {
        this.tell(error);
      }
    }
  }

  private tell(error: unknown): void {
    const fault: Fault =
      error instanceof KernelFault
        ? error.fault
        : { message: error instanceof Error ? error.message : String(error), card: null, line: null, detail: null, level: 'error' };
    this.set({ trouble: fault });
  }

  private async refreshModels(): Promise<void> {
    await this.ask('models', {}, ({ reply }) => {
      const names = reply.models.map(model => model.name);
      this.set({ models: reply.models, phase: names.length ? 'ready' : 'no model' });
      if (!names.length) {
        return;
      }
      const chosen = names.includes(this.state.experiment.model) ? this.state.experiment.model : names[0];
      if (chosen !== this.state.experiment.model) {
        this.edit({ ...this.state.experiment, model: chosen }, false);
      } else {
        this.refresh();
      }
    });
  }

  /** Ask for all that depends on the experiment. */
  private refresh(): void {
    const { experiment } = this.state;
    const { model } = experiment;
    const prompt = experiment.prompts[0];
    if (this.treeOf !== model) {
      this.treeOf = model;
      void this.ask('tree', { model }, ({ reply }) => this.set({ rows: rowsOf(reply) }));
    }
    const asked = this.state.models.find(each => each.name === model);
    if (asked?.tokenizes && prompt) {
      void this.ask('tokens', { model, prompts: [prompt] }, ({ reply }) =>
        this.set({ tokens: reply.prompts[0].tokens, trouble: null })
      );
      void this.ask('shapes', { model, prompt }, ({ reply }) => 
        this.set({ shapes: shapesOf(this.state.rows, reply), how: reply.how })
      );
    } else {
      this.set({ tokens: [], shapes: {}, how: asked?.tokenizes ? 'type a prompt to see shapes' : '' });
    }
    void this.ask('code', { experiment, form: 'with' }, ({ reply }) => this.set({ code: reply.code, faults: reply.faults }));
  }

  private async restoreRun(): Promise<void> {
    await this.ask('runs', {}, ({ reply }) => {
      const last = reply.runs.find(run => run.state !== 'running');
      const going = reply.runs.find(run => run.state === 'running');
      if (going) {
        this.set({ run: going });
      }
      if (last) {
        void this.fetchResult(last.run);
      }
    });
  }

  private async fetchResult(run: number): Promise<void> {
    await this.ask('result', { run }, ({ reply, buffers }) => {
      const logs = reply.logs.map(line => line.text);
      this.set({ result: reply, buffers, logs, progress: null, trouble: reply.fault ?? null });
      if (this.state.run === null || this.state.run.run === run) {
        const { state, headline, seconds, title, at, purpose } = reply;
        this.set({ run: { run, state, headline, seconds, title, at, purpose, held: true } });
      }
      this.ran.emit();
    });
  }

  private onEvents(events: Event[]): void {
    for (const event of events) {
      if (event.type === 'models') {
        this.treeOf = '';
        void this.refreshModels();
      } else if (event.type === 'run') {
        const current = this.state.run;
        if (current === null || event.summary.run >= current.run) {
          this.set({ run: event.summary });
        }
        if (event.summary.state !== 'running') {
          void this.fetchResult(event.summary.run);
        }
      } else if (event.type === 'progress') {
        this.set({ progress: { text: event.text, done: event.done, total: event.total } });
      } else if (event.type === 'log') {
        this.set({ logs: [...this.state.logs, event.line.text].slice(-1000) });
      }
    }
  }

  // ---- what a person does

  choose(model: string): void {
    this.edit({ ...this.state.experiment, model });
  }

  /** The prompt as it is typed; the kernel is asked once typing pauses. */
  type(prompt: string): void {
    const experiment = { ...this.state.experiment, prompts: [prompt] };
    this.past.push(this.state.experiment);
    this.future = [];
    this.set({ experiment });
    window.clearTimeout(this.typing);
    this.typing = window.setTimeout(() => this.settle(), TYPING);
  }

  add(kind: Card['kind'], path: string): void {
    const [experiment, card] = addCard(this.state.experiment, kind, path);
    this.set({ selected: card.id });
    this.edit(experiment);
  }

  change(id: string, change: (card: Card) => Card): void {
    this.edit(changeCard(this.state.experiment, id, change));
  }

  remove(id: string): void {
    this.edit(removeCard(this.state.experiment, id));
  }

  select(id: string | null): void {
    this.set({ selected: id });
  }

  /** Click on a token: take its position into the selected card, or out of it. */
  pick(position: number): void {
    if (this.state.selected !== null) {
      this.edit(togglePosition(this.state.experiment, this.state.selected, position));
    }
  }

  undo(): void {
    this.travel(this.past, this.future);
  }

  redo(): void {
    this.travel(this.future, this.past);
  }

  private travel(from: Experiment[], to: Experiment[]): void {
    const experiment = from.pop();
    if (experiment) {
      to.push(this.state.experiment);
      this.set({ experiment });
      this.settle();
    }
  }

  private edit(experiment: Experiment, undoable = true): void {
    if (undoable) {
      this.past.push(this.state.experiment);
      this.future = [];
    }
    this.set({ experiment });
    this.settle();
  }

  private settle(): void {
    window.clearTimeout(this.typing);
    if (this.state.notebook) {
      void this.store.save(key(this.state.notebook), this.state.experiment as never);
    }
    if (this.transport) {
      this.refresh();
    }
  }

  get running(): boolean {
    return this.state.run?.state === 'running';
  }

  /** Why Run cannot be pressed, or null. */
  get blocked(): string | null {
    const { phase, experiment, faults, models } = this.state;
    if (phase !== 'ready') {
      return 'there is no model yet';
    }
    if (!models.find(model => model.name === experiment.model)?.tokenizes) {
      return 'this model takes no text; run it from a cell';
    }
    if (!experiment.prompts[0]) {
      return 'type a prompt first';
    }
    return faults.length ? faults[0].message : null;
  }

  async run(): Promise<void> {
    if (this.running || this.blocked !== null) {
      return;
    }
    this.set({ logs: [], progress: null, trouble: null });
    await this.ask('run', { experiment: this.state.experiment }, ({ reply }) => {
      if (this.state.run === null || this.state.run.run < reply.run) {
        const started = { state: 'running', headline: 'running …', seconds: 0 } as const;
        this.set({ run: { run: reply.run, ...started, title: null, at: '', purpose: 'run', held: false } });
      }
    });
  }

  async cancel(): Promise<void> {
    const { run } = this.state;
    if (run?.state === 'running') {
      await this.ask('cancel', { run: run.run }, () => undefined);
    }
  }

  private set(part: Partial<State>): void {
    this.state = { ...this.state, ...part };
    this.changed.emit();
  }

  dispose(): void {
    window.clearTimeout(this.typing);
    this.panel?.sessionContext.kernelChanged.disconnect(this.onKernelChanged, this);
    this.leaveKernel();
    Signal.clearData(this);
  }
}

const key = (path: string): string => `workbench:experiment:${path}`;
