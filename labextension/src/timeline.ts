/** What was made and can be undone: whole experiments, with small steps of one kind taken together. */

import type { Experiment } from './generated/protocol';

const TOGETHER = 1000; // ms within which steps of one kind (letters of a prompt, a dragged number) are one step
const KEPT = 200;

export class Timeline {
  private past: Experiment[] = [];
  private future: Experiment[] = [];
  private kind: string | null = null;
  private at = 0;

  /** Remember how it was before a change; changes of the same `kind` close to each other are one. */
  push(before: Experiment, kind: string | null = null, now = Date.now()): void {
    const together = kind !== null && kind === this.kind && now - this.at < TOGETHER;
    if (!together) {
      this.past = [...this.past, before].slice(-KEPT);
    }
    this.future = [];
    this.kind = kind;
    this.at = now;
  }

  undo(present: Experiment): Experiment | undefined {
    const found = this.past.pop();
    if (found) {
      this.future.push(present);
      this.kind = null;
    }
    return found;
  }

  redo(present: Experiment): Experiment | undefined {
    const found = this.future.pop();
    if (found) {
      this.past.push(present);
      this.kind = null;
    }
    return found;
  }

  get canUndo(): boolean {
    return this.past.length > 0;
  }

  get canRedo(): boolean {
    return this.future.length > 0;
  }

  clear(): void {
    this.past = [];
    this.future = [];
    this.kind = null;
  }
}
