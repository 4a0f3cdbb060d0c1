/** JupyterLab's side of the bench: which notebook is in front, which kernel it has, and the line to that kernel. */

import type { NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import type { IStateDB } from '@jupyterlab/statedb';
import type { Bench } from './bench';
import { connect } from './kernel';
import { Disconnected } from './transport';

const GONE: Partial<Record<Kernel.Status, string>> = {
  restarting: 'the kernel was restarted',
  autorestarting: 'the kernel died and was started again',
  dead: 'the kernel died',
  terminating: 'the kernel was shut down'
};

export class Follower {
  private panel: NotebookPanel | null = null;
  private kernel: Kernel.IKernelConnection | null = null;
  private connecting = 0;
  private trying = false;
  private lost: number | null = null; // a run that went with its kernel; a kernel that died is first said to restart
  private worthTrying = false; // something was run since the last try: `workbench` may be imported now

  constructor(
    private readonly bench: Bench,
    private readonly store: IStateDB
  ) {}

  /** Look at another notebook, or at none. */
  async look(panel: NotebookPanel | null): Promise<void> {
    if (panel === this.panel) {
      return;
    }
    this.panel?.sessionContext.kernelChanged.disconnect(this.onKernelChanged, this);
    this.panel = panel;
    this.leave();
    const path = panel?.context.path ?? null;
    this.bench.open(path);
    if (!panel || path === null) {
      return;
    }
    panel.sessionContext.kernelChanged.connect(this.onKernelChanged, this);
    const kept = (await this.store.fetch(key(path))) as unknown;
    if (this.panel !== panel) {
      return;
    }
    if (kept) {
      this.bench.open(path, kept);
    }
    await panel.sessionContext.ready;
    if (this.panel === panel) {
      this.enter(panel.sessionContext.session?.kernel ?? null);
    }
  }

  private onKernelChanged(): void {
    this.enter(this.panel?.sessionContext.session?.kernel ?? null, 'the notebook has another kernel');
  }

  private enter(kernel: Kernel.IKernelConnection | null, why = ''): void {
    if (kernel !== null && kernel === this.kernel) {
      return;
    }
    if (this.kernel) {
      this.lose('no kernel', why);
    }
    this.leave();
    this.kernel = kernel;
    if (kernel) {
      kernel.statusChanged.connect(this.onStatus, this);
      kernel.connectionStatusChanged.connect(this.onConnection, this);
      kernel.iopubMessage.connect(this.onMessage, this);
      this.worthTrying = true;
      void this.connect();
    }
  }

  private leave(): void {
    this.kernel?.statusChanged.disconnect(this.onStatus, this);
    this.kernel?.connectionStatusChanged.disconnect(this.onConnection, this);
    this.kernel?.iopubMessage.disconnect(this.onMessage, this);
    this.kernel = null;
    this.connecting += 1;
    this.bench.detach('no kernel');
  }

  /** The kernel that answered is gone: what was running with it is lost, and is said to be. */
  private lose(phase: 'no kernel' | 'no workbench', why: string): void {
    this.connecting += 1;
    const { run } = this.bench.state;
    if (run?.state === 'running') {
      this.lost = run.run;
    }
    const notice =
      why && this.lost !== null
        ? `Run ${this.lost} was lost: ${why}. What you made is still here; make the model again, then Run.`
        : null;
    this.bench.detach(phase, notice);
  }

  private onStatus(_: Kernel.IKernelConnection, status: Kernel.Status): void {
    const gone = GONE[status];
    if (gone) {
      this.worthTrying = true;
      this.lose('no kernel', gone);
    } else if (status === 'idle') {
      void this.connect();
    }
  }

  private onConnection(_: Kernel.IKernelConnection, status: Kernel.ConnectionStatus): void {
    if (!this.bench.attached) {
      return;
    }
    if (status === 'connected') {
      if (this.bench.state.notice === CUT) {
        this.bench.announce(null);
      }
      void this.bench.resume();
    } else {
      this.bench.announce(CUT);
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
    if (!kernel || kernel.status !== 'idle' || this.bench.attached || this.trying || !this.worthTrying) {
      return;
    }
    this.trying = true;
    this.worthTrying = false;
    const mine = ++this.connecting;
    try {
      const transport = await connect(
        kernel,
        events => this.bench.heard(events),
        () => {
          if (mine === this.connecting) {
            this.lose('no workbench', this.lost === null ? 'the kernel closed the line' : ''); // why was said already
          }
        }
      );
      if (mine !== this.connecting) {
        transport.dispose();
        return;
      }
      this.lost = null;
      await this.bench.attach(transport);
    } catch (error) {
      if (mine === this.connecting) {
        this.bench.phase('no workbench');
        if (!(error instanceof Disconnected)) {
          this.bench.tell(error);
        }
      }
    } finally {
      this.trying = false;
    }
    if (!this.bench.attached && this.worthTrying) {
      void this.connect();
    }
  }

  dispose(): void {
    this.panel?.sessionContext.kernelChanged.disconnect(this.onKernelChanged, this);
    this.leave();
  }
}

const CUT = 'The line to the kernel was cut; trying again … Nothing is lost: a run goes on in the kernel.';

/** Where a notebook's experiment is kept. */
export const key = (path: string): string => `workbench:experiment:${path}`;
