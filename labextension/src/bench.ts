/** The bench: where it is, who answers, and what the kernel says of the experiment. */

import { empty, isExperiment, ofAnotherVersion } from './experiment';
import { Running } from './running';
import { START, TOLD } from './state';
import type { Form, Phase } from './state';
import type { Event, Transport } from './transport';
import { Tree } from './tree';
import type { Experiment } from './generated/protocol';

export type { Compared, Form, Phase, State } from './state';

const LOGS = 5000;

/** What the bench tells its host. */
export interface Host {
  /** Keep the experiment, so that it is there the next time this place is opened. */
  keep(place: string, experiment: Experiment): void;
  /** A run's result is there to be read. */
  ran(): void;
}

export class Bench extends Running {
  private treeOf = '';
  /** What was kept in the form of another version, until a kernel has read it. */
  private older: { version: number } | null = null;

  constructor(private readonly host: Host) {
    super();
  }

  // ---- where it is, and who answers

  /** Begin at another place with what was kept of it, or at none. */
  open(place: string | null, kept?: unknown): void {
    this.drop();
    this.timeline.clear();
    this.older = ofAnotherVersion(kept) ? kept : null;
    const phase = place === null ? 'no notebook' : 'no kernel';
    this.set({ ...START, phase, place, experiment: isExperiment(kept) ? kept : empty() });
  }

  /** A kernel answers: ask for all that there is. */
  async attach(transport: Transport): Promise<void> {
    this.drop();
    this.transport = transport;
    await this.ask('kinds', {}, ({ reply }) => this.set({ kinds: reply }));
    await this.migrate();
    await this.refreshModels();
    await this.restoreRun();
  }

  /** What an earlier version kept: the kernel knows how it is written today. What it cannot read stays where it is. */
  private async migrate(): Promise<void> {
    const { older } = this;
    if (older) {
      await this.ask('migrate', { experiment: older as unknown as Experiment }, ({ reply }) => {
        this.older = null;
        this.set({ experiment: reply.experiment });
      });
    }
    if (older && this.older === older) {
      const notice = `What was kept for this notebook is of version ${older.version}, which is not known here. It stays as it is until you change something.`;
      this.set({ notice, trouble: null });
    }
  }

  /** Nobody answers any more: forget what the kernel said; what the person made, and the last result, stay. */
  detach(phase: Phase, notice: string | null = null): void {
    this.drop();
    this.set({ ...TOLD, phase, notice: notice ?? this.state.notice });
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
    this.stopWaiting();
    this.wanted = null;
    this.transport?.dispose();
    this.transport = null;
    this.treeOf = '';
  }

  protected ran(): void {
    this.host.ran();
  }

  dispose(): void {
    this.drop();
    super.dispose();
  }

  protected edit(experiment: Experiment, kind = ''): void {
    if (experiment !== this.state.experiment) {
      this.older = null;
    }
    super.edit(experiment, kind);
  }

  protected settled(): void {
    if (this.state.place !== null && !this.older) {
      this.host.keep(this.state.place, this.state.experiment);
    }
    if (this.transport) {
      this.refresh();
    }
  }

  /** Another model. */
  choose(model: string): void {
    this.set({ server: null });
    this.edit({ ...this.state.experiment, model });
    this.lookThere();
  }

  /** Read a cell's Python into cards. */
  async lift(text: string): Promise<void> {
    if (!this.transport) {
      this.set({ notice: 'The kernel does not know workbench yet: run `import workbench as wb`, then open the cell again.' });
      return;
    }
    await this.ask('lift', { text }, ({ reply }) => this.adopt(reply.experiment, `Opened from the cell: ${reply.text}.`));
  }

  // ---- what the kernel says

  private async refreshModels(): Promise<void> {
    await this.ask('models', {}, ({ reply }) => {
      const names = reply.models.map(model => model.name);
      this.set({ models: reply.models, phase: names.length ? 'ready' : 'no model' });
      if (!names.length) {
        return;
      }
      const wrapped = reply.models.find(model => model.wrapped)?.name ?? names[0];
      const chosen = names.includes(this.state.experiment.model) ? this.state.experiment.model : wrapped;
      if (chosen !== this.state.experiment.model) {
        this.set({ experiment: { ...this.state.experiment, model: chosen } });
      }
      this.settle();
    });
  }

  /** Ask for all that depends on the experiment. */
  private refresh(): void {
    const { experiment, models, form, remote } = this.state;
    const { model, prompts } = experiment;
    const asked = models.find(each => each.name === model);
    if (!asked) {
      return;
    }
    if (!asked.wrapped) {
      this.set({ tree: null, shapes: null, tokens: null, code: '', faults: [], how: '', treeFor: '' });
      this.treeOf = '';
      void this.ask('wrap', { model }, ({ reply }) => this.set({ wrap: reply.code }));
      return;
    }
    if (this.treeOf !== model) {
      this.treeOf = model;
      performance.mark('workbench:tree');
      void this.ask('tree', { model }, ({ reply, buffers }) => {
        performance.mark('workbench:tree told');
        this.set({ tree: new Tree(reply, buffers), treeFor: model });
      });
    }
    if (asked.tokenizes && prompts.some(Boolean)) {
      void this.ask('tokens', { model, prompts }, ({ reply }) => this.set({ tokens: reply }));
      const prompt = prompts.find(Boolean) ?? '';
      void this.ask('shapes', { model, prompt }, ({ reply }) => this.set({ shapes: reply.shapes, how: reply.how }));
    } else {
      this.set({ tokens: null, shapes: null, how: asked.tokenizes ? 'type a prompt to see shapes' : '' });
    }
    void this.ask('code', { experiment, form, remote }, ({ reply }) => {
      const { code, faults, lines, words } = reply;
      const { trouble, result } = this.state;
      // What a run said stays until the next change, also when the run was quicker than this answer.
      const still = trouble && trouble === result?.fault ? trouble : null;
      this.set({ code, faults, lines, words, wrap: '', judged: experiment, trouble: still });
      this.judged();
    });
  }

  /** What the kernel pushes. */
  heard(events: Event[]): void {
    const lines = events.flatMap(event => (event.type === 'log' ? [event.line] : []));
    if (lines.length) {
      this.set({ logs: [...this.state.logs, ...lines].slice(-LOGS) });
    }
    for (const event of events) {
      if (event.type === 'models') {
        this.treeOf = '';
        void this.refreshModels();
      } else if (event.type === 'run') {
        this.ranOn(event.summary);
      } else if (event.type === 'progress') {
        this.set({ progress: { text: event.text, done: event.done, total: event.total } });
      }
    }
  }

  write(form: Form): void {
    this.set({ form });
    this.settle();
  }

  /** The code in a form, for what is done with it once. */
  async codeAs(form: Form): Promise<string> {
    const transport = this.transport;
    if (!transport) {
      return '';
    }
    const { experiment, remote } = this.state;
    return (await transport.request('code', { experiment, form, remote })).reply.code;
  }
}
