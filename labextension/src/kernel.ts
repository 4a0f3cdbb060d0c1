/** The transport over two comms: on one the kernel only answers, on the other it only pushes. */

import { CommsOverSubshells } from '@jupyterlab/services';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { Disconnected, KernelFault } from './transport';
import type { Answer, Event, Method, Transport } from './transport';
import type { Fault, Methods } from './generated/protocol';

interface Waiting {
  resolve(answer: { reply: never; buffers: DataView[] }): void;
  reject(error: Error): void;
}

interface Reply {
  id: number;
  result?: unknown;
  fault?: Fault;
}

/** Opens both comms; rejects with `Disconnected` while `workbench` is not imported in the kernel. */
export async function connect(
  kernel: Kernel.IKernelConnection,
  onEvents: (events: Event[]) => void,
  onLost: () => void
): Promise<KernelTransport> {
  const transport = new KernelTransport(kernel, onEvents, onLost);
  await transport.open();
  return transport;
}

export class KernelTransport implements Transport {
  private rpc: Kernel.IComm;
  private events: Kernel.IComm;
  private waiting = new Map<number, Waiting>();
  private next = 0;
  private disposed = false;

  constructor(
    private readonly kernel: Kernel.IKernelConnection,
    private readonly onEvents: (events: Event[]) => void,
    private readonly onLost: () => void
  ) {
    this.rpc = kernel.createComm('workbench.rpc');
    this.events = kernel.createComm('workbench.events');
  }

  async open(): Promise<void> {
    for (const comm of [this.rpc, this.events]) {
      comm.onClose = () => this.lose();
      await subshell(this.kernel, comm);
    }
    if (this.disposed) {
      throw new Disconnected('closed while opening');
    }
    this.rpc.onMsg = message => this.answered(message);
    this.events.onMsg = message => {
      const data = message.content.data as unknown as { events: Event[] };
      this.onEvents(data.events);
    };
    this.rpc.open();
    this.events.open();
    await this.request('models', {});
  }

  request<M extends Method>(method: M, params: Methods[M]['params']): Promise<Answer<M>> {
    if (this.disposed) {
      return Promise.reject(new Disconnected(`not connected: ${method}`));
    }
    const id = this.next++;
    return new Promise<Answer<M>>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as Waiting['resolve'], reject });
      this.rpc.send({ id, method, params } as never);
    });
  }

  dispose(): void {
    if (this.disposed) {
      return;
    }
    this.disposed = true;
    for (const comm of [this.rpc, this.events]) {
      if (!comm.isDisposed) {
        comm.onClose = () => undefined;
        try {
          comm.close();
        } catch {
          comm.dispose(); // the kernel is gone: nobody is left to tell
        }
      }
    }
    this.rejectAll();
  }

  private answered(message: KernelMessage.ICommMsgMsg): void {
    const { id, result, fault } = message.content.data as unknown as Reply;
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    if (fault) {
      waiting?.reject(new KernelFault(fault));
    } else {
      const buffers = (message.buffers ?? []).map(buffer =>
        buffer instanceof DataView ? buffer : new DataView(buffer as ArrayBuffer)
      );
      waiting?.resolve({ reply: result as never, buffers });
    }
  }

  private lose(): void {
    if (!this.disposed) {
      this.disposed = true;
      this.rejectAll();
      this.onLost();
    }
  }

  private rejectAll(): void {
    for (const { reject } of this.waiting.values()) {
      reject(new Disconnected('the kernel was restarted, changed or closed'));
    }
    this.waiting.clear();
  }
}

/** A comm that is opened before its subshell stands is served by the main shell, behind running cells. */
async function subshell(kernel: Kernel.IKernelConnection, comm: Kernel.IComm): Promise<void> {
  // Not part of the public interface yet; where it is missing there is nothing to wait for.
  const { subshellStarted } = comm as Kernel.IComm & { subshellStarted?: Promise<void> };
  if (kernel.supportsSubshells && kernel.commsOverSubshells !== CommsOverSubshells.Disabled) {
    await subshellStarted;
  }
}
