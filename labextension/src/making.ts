/** Making: what a person does with the experiment. Each is one step that can be undone. */

import { changeCard, duplicateCard, moveCard, newCard, removeCard, togglePosition, withCards } from './experiment';
import type { Card } from './experiment';
import { Line } from './line';
import { Timeline } from './timeline';
import type { Experiment, Measure } from './generated/protocol';

const TYPING = 150; // ms without a keystroke before the kernel is asked

export abstract class Making extends Line {
  protected timeline = new Timeline();
  private typing: number | undefined;

  /** A prompt as it is typed; the kernel is asked once typing pauses. */
  type(prompt: string, index = 0): void {
    const prompts = this.state.experiment.prompts.map((each, at) => (at === index ? prompt : each));
    this.edit({ ...this.state.experiment, prompts }, `prompt ${index}`);
  }

  addPrompt(): void {
    const { prompts } = this.state.experiment;
    this.edit({ ...this.state.experiment, prompts: [...prompts, ''] });
  }

  removePrompt(index: number): void {
    const { experiment } = this.state;
    const prompts = experiment.prompts.filter((_, at) => at !== index);
    const interventions = experiment.interventions.map(card => {
      const of = 'at' in card ? card.at.prompt : card.prompt;
      if (of === null || of < index) {
        return card;
      }
      const prompt = of === index ? null : of - 1;
      return ('at' in card ? { ...card, at: { ...card.at, prompt } } : { ...card, prompt }) as Card;
    });
    this.edit({ ...experiment, prompts: prompts.length ? prompts : [''], interventions });
  }

  /** New tokens, temperature, seed, measure: what is of the whole run. */
  tune(part: Partial<Pick<Experiment, 'generate' | 'temperature' | 'seed' | 'measure'>>): void {
    this.edit({ ...this.state.experiment, ...part }, `tune ${Object.keys(part).join()}`);
  }

  /** Take a token into what is measured, or out of it. */
  answer(token: string | number): void {
    const { measure } = this.state.experiment;
    const answers = measure?.answers ?? [];
    const next = answers.includes(token) ? answers.filter(each => each !== token) : [...answers, token];
    const metric = measure?.metric ?? (next.length > 1 ? 'logit_difference' : 'probability');
    const two = measure?.metric === 'probability' && answers.length === 1 && next.length === 2;
    const made: Measure = { metric: two ? 'logit_difference' : metric, answers: next };
    this.tune({ measure: next.length || metric === 'kl' ? made : null });
  }

  /** One card, or one for each of several modules. */
  add(kind: string, ...paths: string[]): void {
    const { kinds } = this.state;
    const info = kinds?.kinds.find(each => each.kind === kind);
    if (!kinds || !info) {
      return;
    }
    let { experiment } = this.state;
    for (const path of paths) {
      const card = newCard(experiment, kinds, info, path);
      experiment = withCards(experiment, [...experiment.interventions, card]);
      this.set({ selected: card.id });
    }
    this.edit(experiment);
  }

  change(id: string, change: (card: Card) => Card, field = ''): void {
    this.edit(changeCard(this.state.experiment, id, change), field && `${id} ${field}`);
  }

  remove(id: string): void {
    this.edit(removeCard(this.state.experiment, id));
  }

  duplicate(id: string): void {
    const [experiment, copy] = duplicateCard(this.state.experiment, id);
    if (copy) {
      this.set({ selected: copy.id });
      this.edit(experiment);
    }
  }

  move(id: string, to: { before: string | null } | { by: number }): void {
    this.edit(moveCard(this.state.experiment, id, to));
  }

  select(id: string | null): void {
    this.set({ selected: id });
  }

  /** Click on a token: take its position into the selected card, or out of it. */
  pick(position: number, count: number): void {
    if (this.state.selected !== null) {
      this.edit(changeCard(this.state.experiment, this.state.selected, card => togglePosition(card, position, count)));
    }
  }

  /** Take another experiment in place of this one: of an earlier run, or lifted from a cell. */
  adopt(experiment: Experiment, notice: string | null = null): void {
    const names = this.state.models.map(each => each.name);
    const model = names.includes(experiment.model) || !names.length ? experiment.model : this.state.experiment.model;
    this.set({ selected: null, notice });
    this.edit({ ...experiment, model });
  }

  undo(): void {
    this.travel(this.timeline.undo(this.state.experiment));
  }

  redo(): void {
    this.travel(this.timeline.redo(this.state.experiment));
  }

  private travel(experiment: Experiment | undefined): void {
    if (experiment) {
      this.set({ experiment, trouble: null, canUndo: this.timeline.canUndo, canRedo: this.timeline.canRedo });
      this.settle();
    }
  }

  /** Changes of one `kind` close to each other are typed: they are one step, and the kernel is asked at a pause. */
  protected edit(experiment: Experiment, kind = ''): void {
    if (experiment === this.state.experiment) {
      return;
    }
    this.timeline.push(this.state.experiment, kind || null);
    this.set({ experiment, trouble: null, canUndo: this.timeline.canUndo, canRedo: this.timeline.canRedo });
    if (kind) {
      window.clearTimeout(this.typing);
      this.typing = window.setTimeout(() => this.settle(), TYPING);
    } else {
      this.settle();
    }
  }

  /** The experiment is as it is meant, for now. */
  protected settle(): void {
    this.stopWaiting();
    this.settled();
  }

  protected stopWaiting(): void {
    window.clearTimeout(this.typing);
  }

  /** Keep it, and ask for all that depends on it. */
  protected abstract settled(): void;
}
