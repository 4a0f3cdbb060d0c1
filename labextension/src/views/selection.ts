/** The one selection that runs through all views of a run: a position, a layer, a head, a feature. */

import { useSyncExternalStore } from 'react';

export interface Chosen {
  position: number | null;
  layer: number | null;
  head: number | null;
  feature: number | null;
}

export const NOTHING: Chosen = { position: null, layer: null, head: null, feature: null };

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
