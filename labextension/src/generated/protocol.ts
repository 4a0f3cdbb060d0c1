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
  views: {
    params: RunParams;
    reply: ViewsReply;
  };
  view: {
    params: ViewParams;
    reply: ViewReply;
  };
  tile: {
    params: TileParams;
    reply: TileReply;
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
 * via the `definition` "ViewsReply".
 */
export interface ViewsReply {
  entries: Entry[];
}
/**
 * Something to look at: the run as a whole, where `name` is empty, or a tensor of a saved value.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Entry".
 */
export interface Entry {
  name: string;
  /**
   * which tensor, where the value holds several
   */
  part: number;
  kind: 'residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array';
  title: string;
  kinds: ('residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array')[];
  shape: number[] | null;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ViewParams".
 */
export interface ViewParams {
  run: number;
  /**
   * of a saved value; empty for the run as a whole
   */
  name: string;
  part: number;
  /**
   * null for what suits it
   */
  kind: ('residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array') | null;
  layer: number | null;
  head: number | null;
  batch: number;
  position: number | null;
  /**
   * that are shown beside the strongest
   */
  neurons: number[];
  down: number | null;
  across: number | null;
  index: number[];
  merged: 'mean' | 'largest';
  /**
   * first make the model compute attention so that there are patterns
   */
  eager: boolean;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ViewReply".
 */
export interface ViewReply {
  view: ArrayView | ResidualView | AttentionView | LogitsView | NeuronsView | GradientView;
}
/**
 * Any tensor: two axes as a picture, the others at an index each.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ArrayView".
 */
export interface ArrayView {
  title: string;
  /**
   * the prompt's tokens, by which positions are named
   */
  tokens: string[];
  /**
   * Python that gives this view
   */
  code: string;
  /**
   * what one has to know to read it; a reason where something is missing
   */
  note: string;
  /**
   * as what else the value can be looked at
   */
  kinds: ('residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array')[];
  /**
   * of the value itself, in the kernel
   */
  bytes: number;
  kind: 'array';
  shape: number[];
  /**
   * a name for each axis
   */
  names: string[];
  dtype: string;
  /**
   * its statistics in one line
   */
  text: string;
  /**
   * axis that runs down; null where there is only one
   */
  down: number | null;
  /**
   * axis that runs to the right; null for a single number
   */
  across: number | null;
  /**
   * for each axis the index it stands at; of no meaning for the two shown
   */
  index: number[];
  /**
   * null where there is nothing to draw
   */
  grid: Grid | null;
}
/**
 * A picture's numbers, row-major; NaN and Inf stay what they are. With `sheets`, as many pictures one by one.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Grid".
 */
export interface Grid {
  rows: Axis;
  columns: Axis;
  sheets: number;
  dtype: 'float32' | 'float16';
  buffer: number;
  /**
   * about zero, or from zero
   */
  scale: 'diverging' | 'sequential';
  /**
   * where the colours end, on both sides of zero or above it
   */
  limit: number;
  /**
   * finite numbers of the picture beyond the limit
   */
  clipped: number;
  nan: number;
  infinite: number;
  /**
   * how a cell stands for several numbers
   */
  merged: 'mean' | 'largest';
  /**
   * what a number is: probability, norm, nats
   */
  unit: string;
  /**
   * a word in each cell, row-major
   */
  texts: string[];
  /**
   * what is right of the diagonal does not exist
   */
  causal: boolean;
}
/**
 * What the cells of a picture are along one side: `size` cells from `start`, each of `step` numbers.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Axis".
 */
export interface Axis {
  /**
   * position, feature, layer, head, query, key, …
   */
  name: string;
  /**
   * cells
   */
  size: number;
  /**
   * index of the first number
   */
  start: number;
  /**
   * numbers merged into one cell
   */
  step: number;
  /**
   * numbers along the whole axis, seen or not
   */
  length: number;
  /**
   * a word for each cell, such as its token; empty for numbers
   */
  labels: string[];
}
/**
 * The residual stream: how large it is, and what the model would say if it stopped here.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ResidualView".
 */
export interface ResidualView {
  title: string;
  /**
   * the prompt's tokens, by which positions are named
   */
  tokens: string[];
  /**
   * Python that gives this view
   */
  code: string;
  /**
   * what one has to know to read it; a reason where something is missing
   */
  note: string;
  /**
   * as what else the value can be looked at
   */
  kinds: ('residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array')[];
  /**
   * of the value itself, in the kernel
   */
  bytes: number;
  kind: 'residual';
  norms: Grid;
  /**
   * (layer, position), the top token's probability, its text in each cell
   */
  lens: Grid | null;
  /**
   * by cell, row-major: the likeliest tokens after the first, each with its probability
   */
  runners: string[][];
}
/**
 * The heads of one layer: small pictures of all, one of them large.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "AttentionView".
 */
export interface AttentionView {
  title: string;
  /**
   * the prompt's tokens, by which positions are named
   */
  tokens: string[];
  /**
   * Python that gives this view
   */
  code: string;
  /**
   * what one has to know to read it; a reason where something is missing
   */
  note: string;
  /**
   * as what else the value can be looked at
   */
  kinds: ('residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array')[];
  /**
   * of the value itself, in the kernel
   */
  bytes: number;
  kind: 'attention';
  layer: number | null;
  /**
   * of the model; 1 where the value is of one layer only
   */
  layers: number;
  /**
   * row of the batch
   */
  batch: number;
  /**
   * rows of the batch
   */
  rows: number;
  thumbs: Grid;
  pattern: Grid;
  /**
   * heads that `pattern` holds
   */
  heads: number[];
  scores: HeadScore[];
}
/**
 * What a head does, in numbers between 0 and 1, but for the entropy in nats.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "HeadScore".
 */
export interface HeadScore {
  head: number;
  entropy: number;
  /**
   * attention to the token before
   */
  previous: number;
  /**
   * attention to the first token
   */
  first: number;
  itself: number;
  /**
   * to what came after the same token before; null if none came twice
   */
  induction: number | null;
}
/**
 * The most probable next tokens by position; never the whole vocabulary.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "LogitsView".
 */
export interface LogitsView {
  title: string;
  /**
   * the prompt's tokens, by which positions are named
   */
  tokens: string[];
  /**
   * Python that gives this view
   */
  code: string;
  /**
   * what one has to know to read it; a reason where something is missing
   */
  note: string;
  /**
   * as what else the value can be looked at
   */
  kinds: ('residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array')[];
  /**
   * of the value itself, in the kernel
   */
  bytes: number;
  kind: 'logits';
  vocabulary: number;
  /**
   * one for each position that is shown
   */
  at: LogitsAt[];
}
/**
 * The next token after one position.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "LogitsAt".
 */
export interface LogitsAt {
  position: number;
  /**
   * KL divergence of after from before, in nats; null without a before
   */
  kl: number | null;
  /**
   * of after, in nats
   */
  entropy: number;
  top: Candidate[];
}
/**
 * A next token, before and after: its probability and its rank, 1 for the likeliest.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Candidate".
 */
export interface Candidate {
  token: string;
  id: number;
  before: number | null;
  before_rank: number | null;
  after: number;
  after_rank: number;
}
/**
 * The neurons of an MLP that answer most, and one of them over the text.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "NeuronsView".
 */
export interface NeuronsView {
  title: string;
  /**
   * the prompt's tokens, by which positions are named
   */
  tokens: string[];
  /**
   * Python that gives this view
   */
  code: string;
  /**
   * what one has to know to read it; a reason where something is missing
   */
  note: string;
  /**
   * as what else the value can be looked at
   */
  kinds: ('residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array')[];
  /**
   * of the value itself, in the kernel
   */
  bytes: number;
  kind: 'mlp';
  layer: number | null;
  layers: number;
  /**
   * how many neurons there are
   */
  width: number;
  /**
   * of the rows of `grid`, the strongest first, then what was asked for
   */
  neurons: number[];
  /**
   * at which position each is strongest
   */
  at: number[];
  grid: Grid;
}
/**
 * How a number at the end depends on the values here: how much, and in which direction.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "GradientView".
 */
export interface GradientView {
  title: string;
  /**
   * the prompt's tokens, by which positions are named
   */
  tokens: string[];
  /**
   * Python that gives this view
   */
  code: string;
  /**
   * what one has to know to read it; a reason where something is missing
   */
  note: string;
  /**
   * as what else the value can be looked at
   */
  kinds: ('residual' | 'attention' | 'logits' | 'mlp' | 'gradient' | 'array')[];
  /**
   * of the value itself, in the kernel
   */
  bytes: number;
  kind: 'gradient';
  /**
   * what was differentiated
   */
  of: string;
  norms: Grid;
  /**
   * (layer, position), activation × gradient, summed over features
   */
  product: Grid | null;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TileParams".
 */
export interface TileParams {
  run: number;
  name: string;
  part: number;
  down: number | null;
  across: number | null;
  index: number[];
  /**
   * rows from, to, columns from, to
   *
   * @minItems 4
   * @maxItems 4
   */
  window: unknown[];
  /**
   * cells that are wanted, down and across
   *
   * @minItems 2
   * @maxItems 2
   */
  most: unknown[];
  merged: 'mean' | 'largest';
  limit: number | null;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TileReply".
 */
export interface TileReply {
  grid: Grid;
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
