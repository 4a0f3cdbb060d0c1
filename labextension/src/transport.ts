/** What the views know of a kernel: ask, and be told. Nothing here is Jupyter's. */

import type { Fault, Methods, Protocol } from './generated/protocol';

export type Method = keyof Methods;
export type Event = Protocol['event'];

/** An answer with the arrays that came beside it. */
export interface Answer<M extends Method> {
  reply: Methods[M]['reply'];
  buffers: DataView[];
}

/** The kernel said, in words, that something is wrong. */
export class KernelFault extends Error {
  constructor(readonly fault: Fault) {
    super(fault.message);
  }
}

/** The line to the kernel was cut before the answer came: a restart, another kernel, a closed notebook. */
export class Disconnected extends Error {}

export interface Transport {
  request<M extends Method>(method: M, params: Methods[M]['params']): Promise<Answer<M>>;
  dispose(): void;
}
