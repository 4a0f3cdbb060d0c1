/* Written by scripts/types.py from the Python models. Do not edit. */

export type Event = ModelsChanged | RunChanged | Progress | Logged;

/**
 * Method name → what is asked and what is answered, and what the kernel pushes.
 */
export interface Protocol {
  methods: Methods;
  event: Event;
}
export interface Methods {
  models: {
    params: NoParams;
    reply: ModelsReply;
  };
  tree: {
    params: ModelParams;
    reply: TreeReply;
  };
  tokens: {
    params: PromptParams;
    reply: TokensReply;
  };
  shapes: {
    params: PromptParams;
    reply: ShapesReply;
  };
  code: {
    params: ExperimentParams;
    reply: CodeReply;
  };
  run: {
    params: ExperimentParams;
    reply: StartedReply;
  };
  cancel: {
    params: RunParams;
    reply: DoneReply;
  };
  result: {
    params: RunParams;
    reply: RunResult;
  };
  runs: {
    params: NoParams;
    reply: RunsReply;
  };
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "NoParams".
 */
export interface NoParams {}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ModelsReply".
 */
export interface ModelsReply {
  /**
   * changes when the kernel restarts
   */
  kernel: string;
  models: ModelInfo[];
}
/**
 * A model found in the kernel's namespace.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ModelInfo".
 */
export interface ModelInfo {
  /**
   * the variable's name
   */
  name: string;
  cls: string;
  parameters: number;
  device: string;
  /**
   * takes text as a prompt
   */
  tokenizes: boolean;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ModelParams".
 */
export interface ModelParams {
  model: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TreeReply".
 */
export interface TreeReply {
  rows: ModuleRow[];
}
/**
 * One module, in pre-order; the page folds and searches these.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ModuleRow".
 */
export interface ModuleRow {
  path: string;
  name: string;
  cls: string;
  depth: number;
  children: number;
  parameters: number;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "PromptParams".
 */
export interface PromptParams {
  model: string;
  prompt: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TokensReply".
 */
export interface TokensReply {
  tokens: string[];
  ids: number[];
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ShapesReply".
 */
export interface ShapesReply {
  shapes: {
    [k: string]: Shape;
  };
  /**
   * 'scanned', or why the shapes are unknown
   */
  how: string;
}
/**
 * What goes in and comes out of one module for the present prompt.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Shape".
 */
export interface Shape {
  input: number[] | null;
  output: number[] | null;
  dtype: string | null;
  /**
   * why unknown, when it is
   */
  why: string | null;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ExperimentParams".
 */
export interface ExperimentParams {
  experiment: Experiment;
}
/**
 * One run, written down: which model, which prompt, which interventions in which order.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Experiment".
 */
export interface Experiment {
  version: 1;
  /**
   * the model's name in the kernel
   */
  model: string;
  prompt: string;
  interventions: (Save | Ablate)[];
}
/**
 * Keep a value after the run, under a Python name.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Save".
 */
export interface Save {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  at: Target;
  enabled: boolean;
  kind: 'save';
  /**
   * the Python name the value is saved under
   */
  name: string;
}
/**
 * Where an intervention applies.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Target".
 */
export interface Target {
  /**
   * module path below the model, '' is the model itself
   */
  path: string;
  port: 'output' | 'input';
  /**
   * token positions; null means all
   */
  positions: number[] | null;
}
/**
 * Remove what a module says.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Ablate".
 */
export interface Ablate {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  at: Target;
  enabled: boolean;
  kind: 'ablate';
  /**
   * zero, or the mean over positions
   */
  mode: 'zero' | 'mean';
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "CodeReply".
 */
export interface CodeReply {
  code: string;
  /**
   * what is wrong with which card; any fault disables Run
   */
  faults: Fault[];
}
/**
 * Something wrong, in words a person can act on.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Fault".
 */
export interface Fault {
  message: string;
  /**
   * id of the card it belongs to, when it belongs to one
   */
  card: string | null;
  /**
   * the user's own line, when one is to blame
   */
  line: string | null;
  /**
   * the traceback, for the curious
   */
  detail: string | null;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "StartedReply".
 */
export interface StartedReply {
  run: number;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "RunParams".
 */
export interface RunParams {
  run: number;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "DoneReply".
 */
export interface DoneReply {}
/**
 * All that the Results tab shows of one run.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "RunResult".
 */
export interface RunResult {
  run: number;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  /**
   * run 7 · 0.21 s · Paris 0.93 → Rome 0.41 · 1 intervention · 2 values saved
   */
  headline: string;
  seconds: number;
  experiment: Experiment;
  code: string;
  tokens: string[];
  /**
   * most probable next tokens of the clean run
   */
  before: TopToken[];
  /**
   * the same tokens' row after the interventions
   */
  after: TopToken[];
  saved: Saved[];
  logs: LogLine[];
  fault: Fault | null;
}
/**
 * A next token with its probability.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TopToken".
 */
export interface TopToken {
  token: string;
  id: number;
  probability: number;
}
/**
 * One saved value: what it is, and how it looks.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Saved".
 */
export interface Saved {
  name: string;
  path: string;
  port: string;
  shape: number[] | null;
  dtype: string | null;
  /**
   * a one-line summary: statistics of a tensor, repr of anything else
   */
  text: string;
  view: Heatmap | null;
}
/**
 * A float32 picture, row-major in the reply's buffer number `buffer`. NaN and Inf stay NaN and Inf in it.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Heatmap".
 */
export interface Heatmap {
  kind: 'heatmap';
  rows: number;
  columns: number;
  /**
   * token labels, or row numbers as text
   */
  row_labels: string[];
  /**
   * colours run from -limit to +limit; what lies outside is clipped
   */
  limit: number;
  /**
   * finite numbers of the picture that lie outside the limit
   */
  clipped: number;
  /**
   * numbers of the picture that are NaN
   */
  nan: number;
  /**
   * numbers of the picture that are plus or minus infinity
   */
  infinite: number;
  /**
   * features merged into one column, by mean; 1 means none
   */
  stride: number;
  /**
   * rows merged into one, by mean; 1 means none
   */
  row_stride: number;
  buffer: number;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "LogLine".
 */
export interface LogLine {
  run: number;
  text: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "RunsReply".
 */
export interface RunsReply {
  runs: RunSummary[];
}
/**
 * A run in the history.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "RunSummary".
 */
export interface RunSummary {
  run: number;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  headline: string;
  seconds: number;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ModelsChanged".
 */
export interface ModelsChanged {
  type: 'models';
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "RunChanged".
 */
export interface RunChanged {
  type: 'run';
  summary: RunSummary;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Progress".
 */
export interface Progress {
  type: 'progress';
  run: number;
  done: number;
  total: number;
  text: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Logged".
 */
export interface Logged {
  type: 'log';
  line: LogLine;
}
