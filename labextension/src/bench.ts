/**
 * The bench: what was made, and what the kernel last said of it. It knows a `Transport`, and nothing of Jupyter.
 *
 * One immutable `state`; every change goes through `set`. Of each kind of request only the newest answer is kept.
 */

import { addCard, changeCard, empty, removeCard, togglePosition } from './experiment';
import type { Card } from './experiment';
import { Timeline } from './timeline';
import { Disconnected, KernelFault } from './transport';
import type { Answer, Event, Method, Transport } from './transport';
import type { Experiment, Fault, Methods, ModelInfo, ModuleRow, RunResult, RunSummary, Shape } from './generated/protocol';

export type Phase = 'no notebook' | 'no kernel' | 'no workbench' | 'no model' | 'ready';

export interface State {
  phase: Phase;
  /** What the experiment belongs to: a notebook's path, or a name of the widget's. */
  place: string | null;
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
  /** What happened to the kernel, in words, until the next run. */
  notice: string | null;
  canUndo: boolean;
  canRedo: boolean;
}

const START: State = {
  phase: 'no notebook',
  place: null,
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
  trouble: null,
  notice: null,
  canUndo: false,
  canRedo: false
};

const TYPING = 150; // ms without a keystroke before the kernel is asked

/** What the bench tells its host. */
export interface Host {
  /** Keep the experiment, so that it is there the next time this place is opened. */
  keep(place: string, experiment: Experiment): void;
  /** A run's result is there to be read. */
  ran(): void;
}

export class Bench {
  state: State = START;

  private listeners = new Set<() => void>();
  private transport: Transport | null = null;
  private newest = new Map<Method, number>();
  private timeline = new Timeline();
  private typing: number | undefined;
  private treeOf = '';

  constructor(private readonly host: Host) {}

  /** Be told of each change; gives what ends it. Made for `useSyncExternalStore`. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): State => this.state;

  // ---- where it is, and who answers

  /** Begin at another place with what was kept of it, or at none. */
  open(place: string | null, kept?: Experiment): void {
    this.drop();
    this.timeline.clear();
    const phase = place === null ? 'no notebook' : 'no kernel';
    this.set({ ...START, phase, place, experiment: kept?.version === 1 ? kept : empty() });
  }

  /** A kernel answers: ask for all that there is. */
  async attach(transport: Transport): Promise<void> {
    this.drop();
    this.transport = transport;
    await this.refreshModels();
    await this.restoreRun();
  }

  /** Nobody answers any more: forget what the kernel said; what the person made, and the last result, stay. */
  detach(phase: Phase, notice: string | null = null): void {
    this.drop();
    const { place, experiment, selected, result, buffers, logs, canUndo, canRedo } = this.state;
    this.set({
      ...START,
      ...{ phase, place, experiment, selected, result, buffers, logs, canUndo, canRedo },
      notice: notice ?? this.state.notice
    });
  }

  get attached(): boolean {
    return this.transport !== null;
  }

  /** After the line was cut and mended: what was missed meanwhile. */
  async resume(): Promise<void> {
    if (this.transport) {
      await this.restoreRun();
    }
  }

  announce(notice: string | null): void {
    this.set({ notice });
  }

  phase(phase: Phase): void {
    this.set({ phase });
  }

  private drop(): void {
    window.clearTimeout(this.typing);
    this.transport?.dispose();
    this.transport = null;
    this.treeOf = '';
  }

  dispose(): void {
    this.drop();
    this.listeners.clear();
  }

  // ---- asking the kernel

  /** A request of a view's own, beside those that the state is made of. */
  readonly request = <M extends Method>(method: M, params: Methods[M]['params']): Promise<Answer<M>> =>
    this.transport?.request(method, params) ?? Promise.reject(new Disconnected(`not connected: ${method}`));

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

  /** Something went wrong: say it in words. */
  tell(error: unknown): void {
    const fault: Fault =
      error instanceof KernelFault
        ? error.fault
        : { message: error instanceof Error ? error.message : String(error), card: null, line: null, detail: null };
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
        this.set({ experiment: { ...this.state.experiment, model: chosen } });
      }
      this.settle();
    });
  }

  /** Ask for all that depends on the experiment. */
  private refresh(): void {
    const { experiment } = this.state;
    const { model, prompt } = experiment;
    if (this.treeOf !== model) {
      this.treeOf = model;
      void this.ask('tree', { model }, ({ reply }) => this.set({ rows: reply.rows }));
    }
    const asked = this.state.models.find(each => each.name === model);
    if (asked?.tokenizes && prompt) {
      void this.ask('tokens', { model, prompt }, ({ reply }) => this.set({ tokens: reply.tokens, trouble: null }));
      void this.ask('shapes', { model, prompt }, ({ reply }) => this.set({ shapes: reply.shapes, how: reply.how }));
    } else {
      this.set({ tokens: [], shapes: {}, how: asked?.tokenizes ? 'type a prompt to see shapes' : '' });
    }
    void this.ask('code', { experiment }, ({ reply }) => this.set({ code: reply.code, faults: reply.faults }));
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
        const { state, headline, seconds } = reply;
        this.set({ run: { run, state, headline, seconds } });
      }
      this.host.ran();
    });
  }

  /** What the kernel pushes. */
  heard(events: Event[]): void {
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
    this.remember('prompt');
    this.set({ experiment: { ...this.state.experiment, prompt } });
    window.clearTimeout(this.typing);
    this.typing = window.setTimeout(() => this.settle(), TYPING);
  }

  add(kind: Card['kind'], path: string): void {
    const [experiment, card] = addCard(this.state.experiment, kind, path);
    this.set({ selected: card.id });
    this.edit(experiment);
  }

  change(id: string, change: (card: Card) => Card): void {
    this.edit(changeCard(this.state.experiment, id, change), `card ${id}`);
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
    this.travel(this.timeline.undo(this.state.experiment));
  }

  redo(): void {
    this.travel(this.timeline.redo(this.state.experiment));
  }

  private travel(experiment: Experiment | undefined): void {
    if (experiment) {
      this.set({ experiment, canUndo: this.timeline.canUndo, canRedo: this.timeline.canRedo });
      this.settle();
    }
  }

  private remember(kind: string | null = null): void {
    this.timeline.push(this.state.experiment, kind);
    this.set({ canUndo: this.timeline.canUndo, canRedo: this.timeline.canRedo });
  }

  private edit(experiment: Experiment, kind: string | null = null): void {
    this.remember(kind);
    this.set({ experiment });
    this.settle();
  }

  private settle(): void {
    window.clearTimeout(this.typing);
    if (this.state.place !== null) {
      this.host.keep(this.state.place, this.state.experiment);
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
    if (!experiment.prompt) {
      return 'type a prompt first';
    }
    return faults.length ? faults[0].message : null;
  }

  async run(): Promise<void> {
    if (this.running || this.blocked !== null) {
      return;
    }
    this.set({ logs: [], progress: null, trouble: null, notice: null });
    await this.ask('run', { experiment: this.state.experiment }, ({ reply }) => {
      if (this.state.run === null || this.state.run.run < reply.run) {
        this.set({ run: { run: reply.run, state: 'running', headline: 'running …', seconds: 0 } });
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
    for (const listener of this.listeners) {
      listener();
    }
  }
}
