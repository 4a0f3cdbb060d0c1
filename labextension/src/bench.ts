/** The bench: where it is, what the kernel says of the experiment, and what was run. */

import { empty, isExperiment, ofAnotherVersion } from './experiment';
import { Making } from './making';
import { START, TOLD } from './state';
import type { Compared, Form, Phase } from './state';
import { Disconnected } from './transport';
import type { Event, Transport } from './transport';
import { Tree } from './tree';
import type { Experiment, Methods, RunSummary, StartedReply } from './generated/protocol';

export type { Compared, Form, Phase, State } from './state';

const LOGS = 5000;

/** What the bench tells its host. */
export interface Host {
  /** Keep the experiment, so that it is there the next time this place is opened. */
  keep(place: string, experiment: Experiment): void;
  /** A run's result is there to be read. */
  ran(): void;
}

export class Bench extends Making {
  private treeOf = '';
  /** What is to be run as soon as the kernel has judged what was typed last. */
  private wanted: 'run' | 'verify' | null = null;
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
    this.transport?.dispose();
    this.transport = null;
    this.treeOf = '';
  }

  dispose(): void {
    this.drop();
    super.dispose();
  }

  protected edit(experiment: Experiment, kind = ''): void {
    if (experiment !== this.state.experiment) {
      this.older = null;
      this.wanted = null;
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
      if (this.wanted) {
        this.start(this.wanted);
      }
    });
  }

  private async restoreRun(): Promise<void> {
    await this.ask('runs', {}, ({ reply }) => {
      const own = (run: RunSummary) => run.purpose !== 'verify';
      const going = reply.runs.find(run => run.state === 'running');
      const last = reply.runs.find(run => run.state !== 'running' && own(run));
      this.set({ runs: reply.runs, run: going ?? null });
      if (last) {
        void this.show(last.run);
      }
    });
  }

  private refreshRuns(): void {
    void this.ask('runs', {}, ({ reply }) => this.set({ runs: reply.runs }));
    void this.ask('tensors', {}, ({ reply }) => this.set({ tensors: reply.tensors }));
  }

  /** Fetch a run's result and show it. */
  async show(run: number): Promise<void> {
    await this.ask('result', { run }, ({ reply }) => {
      this.set({ result: reply, logs: reply.logs, progress: null, quiet: [] });
      const current = this.state.run;
      if (current === null || current.state !== 'running' || current.run === run) {
        const { state, headline, purpose } = reply;
        this.set({ run: { run, state, headline, purpose } });
      }
      if (reply.fault && reply.state === 'failed') {
        this.set({ trouble: reply.fault });
      }
      if (reply.state === 'done') {
        void this.ask('fired', { run }, answer => this.set({ quiet: answer.reply.quiet }));
      }
      this.host.ran();
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

  private ranOn(summary: RunSummary): void {
    const current = this.state.run;
    if (current === null || summary.run >= current.run) {
      this.set({ run: summary });
    }
    if (summary.state === 'running') {
      return;
    }
    if (summary.purpose === 'verify') {
      void this.ask('result', { run: summary.run }, ({ reply }) => this.verifiedBy(summary.run, reply), 'verified');
    } else {
      void this.show(summary.run);
    }
    this.refreshRuns();
  }

  private verifiedBy(run: number, reply: Methods['result']['reply']): void {
    const { comparison, fault } = reply;
    const text = comparison?.text ?? fault?.message ?? reply.headline;
    this.set({ verified: { run, equal: comparison?.equal ?? false, text, of: this.state.code }, progress: null });
  }

  // ---- running, and reading what was run

  get running(): boolean {
    return this.state.run?.state === 'running';
  }

  /** Why Run cannot be pressed, or null. */
  get blocked(): string | null {
    return this.missing ?? this.faulty;
  }

  /** Whether what is known of the cards' faults is of an earlier experiment, so that Run can wait for the kernel's word. */
  get unjudged(): boolean {
    return this.missing === null && this.state.judged !== this.state.experiment;
  }

  private get missing(): string | null {
    const { phase, experiment, models, remote, server } = this.state;
    if (phase !== 'ready') {
      return 'there is no model yet';
    }
    const model = models.find(each => each.name === experiment.model);
    if (!model?.wrapped) {
      return 'wrap the model first';
    }
    if (!model.tokenizes) {
      return 'this model takes no text; run it from a cell';
    }
    if (!experiment.prompts.some(Boolean)) {
      return 'type a prompt first';
    }
    return !remote || server?.hosts ? null : server ? 'the server cannot run it' : 'asking the server …';
  }

  private get faulty(): string | null {
    const errors = this.state.faults.filter(fault => fault.level !== 'warning');
    const at = new Set(errors.filter(fault => fault.card !== null).map(fault => fault.card)).size;
    if (at) {
      return at === 1 ? '1 card has a fault' : `${at} cards have faults`;
    }
    return errors.length ? errors[0].message : null;
  }

  /** Runs go to the server that the kernel's `wb.CONFIG` names, or are made here. */
  runThere(remote: boolean): void {
    this.set({ remote, server: null });
    this.lookThere();
    this.settle();
  }

  /** What the server hosts, and how many jobs wait there. */
  lookThere(): void {
    const { remote, experiment, models } = this.state;
    if (remote && models.some(each => each.name === experiment.model && each.wrapped)) {
      void this.ask('server', { model: experiment.model }, ({ reply }) => this.set({ server: reply }));
    }
  }

  async run(): Promise<void> {
    this.start('run');
  }

  /** Run the code as text, in a namespace of its own, and compare. */
  async verify(): Promise<void> {
    this.set({ verified: null });
    this.start('verify');
  }

  /** What was typed a moment ago is judged first: an older fault keeps nothing from running, nor does it hide a new one. */
  private start(method: 'run' | 'verify'): void {
    this.wanted = null;
    if (!this.running && this.blocked !== null && this.unjudged) {
      this.wanted = method;
      this.settle();
    }
    if (this.running || this.blocked !== null) {
      return;
    }
    this.set({ progress: null, trouble: null, notice: null, ...(method === 'run' ? { logs: [] } : {}) });
    const { experiment, remote } = this.state;
    const headline = method === 'run' ? 'running …' : 'verifying …';
    const began = ({ reply }: { reply: StartedReply }) => this.began(reply.run, method, headline);
    void (method === 'run' ? this.ask('run', { experiment, remote }, began) : this.ask('verify', { experiment }, began));
  }

  private began(run: number, purpose: RunSummary['purpose'], headline: string): void {
    if (this.state.run === null || this.state.run.run < run) {
      this.set({ run: { run, headline, purpose, state: 'running' } });
    }
  }

  async cancel(): Promise<void> {
    const { run } = this.state;
    if (run?.state === 'running') {
      await this.ask('cancel', { run: run.run }, () => undefined);
    }
  }

  async rename(run: number, title: string): Promise<void> {
    await this.ask('rename', { run, title: title.trim() || null }, () => this.refreshRuns());
  }

  /** Take an earlier run's experiment into the panel. */
  async reopen(run: number): Promise<void> {
    await this.ask('result', { run }, ({ reply }) => this.adopt(reply.experiment, `Opened from run ${run}.`), 'reopen');
  }

  async forget(run: number): Promise<void> {
    await this.ask('delete', { run }, () => this.refreshRuns());
  }

  /** Two runs side by side. */
  async compare(run: number, other: number): Promise<void> {
    const transport = this.transport;
    if (!transport) {
      return;
    }
    try {
      const [both, a, b] = await Promise.all([
        transport.request('compare', { run, other }),
        transport.request('result', { run }),
        transport.request('result', { run: other })
      ]);
      const compared: Compared = { comparison: both.reply, left: a.reply, right: b.reply };
      this.set({ compared });
    } catch (error) {
      if (!(error instanceof Disconnected)) {
        this.tell(error);
      }
    }
  }

  /** A run as one file beside the notebook. */
  async saveCapsule(run: number): Promise<void> {
    await this.ask('capsule_save', { run, path: null }, ({ reply }) => {
      const size = reply.bytes < 1e6 ? `${Math.ceil(reply.bytes / 1e3)} kB` : `${(reply.bytes / 1e6).toFixed(1)} MB`;
      this.set({ capsule: reply, notice: `Run ${run} was saved as ${reply.path} (${size}).` });
    });
  }

  async openCapsule(path: string): Promise<void> {
    this.set({ trouble: null });
    await this.ask('capsule_load', { path }, ({ reply }) => this.set({ capsule: reply }));
  }

  /** Run what is in the capsule again, and say what differs. */
  async rerunCapsule(consent: boolean): Promise<void> {
    const { capsule, models, experiment } = this.state;
    if (!capsule || this.running) {
      return;
    }
    const there = models.some(each => each.name === capsule.experiment.model && each.wrapped);
    this.set({ progress: null, trouble: null, notice: null, logs: [] });
    const params = { path: capsule.path, model: there ? null : experiment.model, consent };
    await this.ask('capsule_rerun', params, ({ reply }) => this.began(reply.run, 'rerun', 'running …'));
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
