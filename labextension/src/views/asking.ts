/** Asking: what a view may ask of whoever holds the value; nothing of it is there in a saved page. */

import type { Answer, Method } from '../transport';
import type { Methods, ViewParams } from '../generated/protocol';
import type { Selection } from './selection';

export type Request = <M extends Method>(method: M, params: Methods[M]['params']) => Promise<Answer<M>>;

/** Which value a view is of. */
export interface Of {
  run: number;
  name: string;
  part: number;
}

export type Options = Omit<ViewParams, keyof Of>;
export type Change = Partial<Options>;

/** Nothing chosen yet: what suits the value. */
export const SUITS: Options = {
  kind: null,
  layer: null,
  head: null,
  batch: 0,
  position: null,
  neurons: [],
  down: null,
  across: null,
  index: [],
  merged: 'mean',
  eager: false
};

/** What each kind of view is given. */
export interface ViewProps<H> {
  header: H;
  buffers: DataView[];
  selection: Selection;
  /** The same view with something chosen otherwise; absent in a saved page. */
  change?(change: Change): void;
  request?: Request;
  of?: Of;
}
