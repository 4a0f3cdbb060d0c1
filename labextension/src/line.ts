/** The line: the state, who is told of its changes, and how the kernel is asked. It knows a `Transport`, not Jupyter. */

import { START } from './state';
import type { State } from './state';
import { Disconnected, KernelFault } from './transport';
import type { Answer, Method, Transport } from './transport';
import type { Fault, Methods } from './generated/protocol';

/** One immutable `state`; every change goes through `set`. Of each kind of request only the newest answer is kept. */
export class Line {
  state: State = START;

  protected transport: Transport | null = null;
  private listeners = new Set<() => void>();
  private newest = new Map<string, number>();

  /** Be told of each change; gives what ends it. Made for `useSyncExternalStore`. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): State => this.state;

  get attached(): boolean {
    return this.transport !== null;
  }

  /** A request of a view's own, beside those that the state is made of. */
  readonly request = <M extends Method>(method: M, params: Methods[M]['params']): Promise<Answer<M>> =>
    this.transport?.request(method, params) ?? Promise.reject(new Disconnected(`not connected: ${method}`));

  /** Ask, and act on the answer unless a newer request of the kind (or of the `slot`) has been made meanwhile. */
  protected async ask<M extends Method>(
    method: M,
    params: Methods[M]['params'],
    use: (answer: Answer<M>) => void,
    slot: string = method
  ): Promise<void> {
    const transport = this.transport;
    if (!transport) {
      return;
    }
    const number = (this.newest.get(slot) ?? 0) + 1;
    this.newest.set(slot, number);
    const current = () => this.newest.get(slot) === number && transport === this.transport;
    try {
      const answer = await transport.request(method, params);
      if (current()) {
        use(answer);
      }
    } catch (error) {
      if (current() && !(error instanceof Disconnected)) {
        this.tell(error);
      }
    }
  }

  /** Something went wrong: say it in words. */
  tell(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    const fault: Fault =
      error instanceof KernelFault ? error.fault : { message, card: null, line: null, detail: null, level: 'error' };
    this.set({ trouble: fault });
  }

  dispose(): void {
    this.listeners.clear();
  }

  protected set(part: Partial<State>): void {
    this.state = { ...this.state, ...part };
    for (const listener of this.listeners) {
      listener();
    }
  }
}
