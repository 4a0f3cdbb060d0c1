/** Running: what keeps an experiment from it, how a run is begun and ended, and what is read of those that were made. */

import { Making } from './making';
import { Disconnected } from './transport';
import type { Compared } from './state';
import type { Experiment, Methods, RunSummary, StartedReply } from './generated/protocol';

export abstract class Running extends Making {
  /** What is to be run as soon as the kernel has judged what was typed last. */
  protected wanted: 'run' | 'verify' | null = null;

  protected edit(experiment: Experiment, kind = ''): void {
    this.wanted = null;
    super.edit(experiment, kind);
  }

  /** A run's result is there to be read. */
  protected abstract ran(): void;

  // ---- beginning, and ending

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

  // ---- how it went

  /** The kernel has judged the experiment as it is now. */
  protected judged(): void {
    if (this.wanted) {
      this.start(this.wanted);
    }
  }

  protected async restoreRun(): Promise<void> {
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

  protected ranOn(summary: RunSummary): void {
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
      this.ran();
    });
  }

  // ---- what was run

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
}
