/** The transport over a widget's messages: the same requests and events as over JupyterLab's comms. */

import type { Fault, Methods } from '../generated/protocol';
import { Disconnected, KernelFault } from '../transport';
import type { Answer, Event, Method, Transport } from '../transport';

/** What there is of a widget's model in every host. */
export interface Model {
  get(name: string): unknown;
  on(name: string, act: (message: never, buffers: DataView[]) => void): void;
  off(name: string, act: (message: never, buffers: DataView[]) => void): void;
  send(message: unknown): void;
}

interface Told {
  id?: string;
  result?: unknown;
  fault?: Fault;
  events?: Event[];
}

interface Waiting {
  resolve(answer: { reply: never; buffers: DataView[] }): void;
  reject(error: Error): void;
}

export class WidgetTransport implements Transport {
  private waiting = new Map<string, Waiting>();
  private next = 0;
  private readonly mine = Math.random().toString(36).slice(2); // a model may be shown twice

  constructor(
    private readonly model: Model,
    private readonly onEvents: (events: Event[]) => void
  ) {
    model.on('msg:custom', this.heard);
  }

  request<M extends Method>(method: M, params: Methods[M]['params']): Promise<Answer<M>> {
    const id = `${this.mine} ${this.next++}`;
    return new Promise<Answer<M>>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as Waiting['resolve'], reject });
      this.model.send({ id, method, params });
    });
  }

  dispose(): void {
    this.model.off('msg:custom', this.heard);
    for (const { reject } of this.waiting.values()) {
      reject(new Disconnected('the widget is gone'));
    }
    this.waiting.clear();
  }

  private readonly heard = (message: never, buffers: DataView[]) => {
    const { id, result, fault, events } = message as Told;
    if (events) {
      this.onEvents(events);
    }
    const waiting = id === undefined ? undefined : this.waiting.get(id);
    if (!waiting || id === undefined) {
      return;
    }
    this.waiting.delete(id);
    if (fault) {
      waiting.reject(new KernelFault(fault));
    } else {
      waiting.resolve({ reply: result as never, buffers: (buffers ?? []).map(viewed) });
    }
  };
}

const viewed = (each: DataView | ArrayBuffer | Uint8Array): DataView =>
  each instanceof ArrayBuffer ? new DataView(each) : new DataView(each.buffer, each.byteOffset, each.byteLength);
