/** The one selection that runs through all views of a run: positions, a layer, a head, a feature. */

import { useEffect, useSyncExternalStore } from 'react';

export interface Chosen {
  position: number | null;
  /** What a position looks at. */
  key: number | null;
  /** -1 for what goes into layer 0. */
  layer: number | null;
  head: number | null;
  /** One of a width: features of the stream are not neurons of an MLP. */
  feature: { at: number; of: number } | null;
}

export const NOTHING: Chosen = { position: null, key: null, layer: null, head: null, feature: null };

export class Selection {
  private chosen = NOTHING;
  private listeners = new Set<() => void>();

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): Chosen => this.chosen;

  /** Choose; what is not named stays. */
  choose(part: Partial<Chosen>): void {
    const next = { ...this.chosen, ...part };
    if ((Object.keys(next) as (keyof Chosen)[]).some(key => next[key] !== this.chosen[key])) {
      this.chosen = next;
      this.listeners.forEach(listener => listener());
    }
  }
}

export const useSelection = (selection: Selection): Chosen =>
  useSyncExternalStore(selection.subscribe, selection.snapshot);

interface OfALayer {
  layer: number | null;
  layers: number;
}

/** A view of one layer shows the chosen one, if somebody answers. */
export function useLayer({ layer, layers }: OfALayer, chosen: Chosen, ask: ((layer: number) => void) | undefined): void {
  const wanted = chosen.layer;
  useEffect(() => {
    if (layer !== null && wanted !== null && wanted !== layer && wanted >= 0 && wanted < layers) {
      ask?.(wanted);
    }
  }, [wanted]); // not when an answer comes, which may be another's
}
