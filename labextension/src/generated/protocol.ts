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
  wrap: {
    params: ModelParams;
    reply: WrapReply;
  };
  tree: {
    params: ModelParams;
    reply: TreeReply;
  };
  tokens: {
    params: PromptsParams;
    reply: TokensReply;
  };
  shapes: {
    params: PromptParams;
    reply: ShapesReply;
  };
  fired: {
    params: RunParams;
    reply: FiredReply;
  };
  kinds: {
    params: NoParams;
    reply: KindsReply;
  };
  tensors: {
    params: NoParams;
    reply: TensorsReply;
  };
  server: {
    params: ModelParams;
    reply: ServerReply;
  };
  migrate: {
    params: ExperimentParams;
    reply: ExperimentReply;
  };
  code: {
    params: CodeParams;
    reply: CodeReply;
  };
  lift: {
    params: LiftParams;
    reply: LiftReply;
  };
  run: {
    params: StartParams;
    reply: StartedReply;
  };
  verify: {
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
  compare: {
    params: TwoRunsParams;
    reply: Comparison;
  };
  rename: {
    params: RenameParams;
    reply: DoneReply;
  };
  delete: {
    params: RunParams;
    reply: DoneReply;
  };
  keep: {
    params: KeepParams;
    reply: DoneReply;
  };
  capsule_save: {
    params: CapsuleParams;
    reply: CapsuleReply;
  };
  capsule_load: {
    params: PathParams;
    reply: CapsuleReply;
  };
  capsule_rerun: {
    params: RerunParams;
    reply: StartedReply;
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
  /**
   * false for a plain module, which `wrap` gives the line of code for
   */
  wrapped: boolean;
  /**
   * how many layers, where standard names are known
   */
  layers: number | null;
  /**
   * heads of an attention module
   */
  heads: number | null;
  /**
   * rows of its tree
   */
  modules: number;
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
 * via the `definition` "WrapReply".
 */
export interface WrapReply {
  /**
   * the line that wraps it, to be inserted as a cell
   */
  code: string;
}
/**
 * All modules, parents first, in columns beside it; a module's path is its parent's, a dot, and its name.
 *
 * The first buffer holds four columns of int32, one behind the other: the parent's row (-1 for the model itself), the
 * name's place in `words`, the class's place in `classes`, and a key that is equal for modules of the same structure.
 * The second holds the numbers of parameters, as float64.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TreeReply".
 */
export interface TreeReply {
  /**
   * the model's own
   */
  name: string;
  rows: number;
  /**
   * the last parts that paths have
   */
  words: string[];
  /**
   * the class names that there are
   */
  classes: string[];
  /**
   * row → its standard name, such as layers[2].attn
   */
  standard: {
    [k: string]: string;
  };
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "PromptsParams".
 */
export interface PromptsParams {
  model: string;
  prompts: string[];
}
/**
 * Each prompt's tokens, and one column for what corresponds: `aligned[prompt][column]` is a position, or null.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TokensReply".
 */
export interface TokensReply {
  prompts: Tokens[];
  aligned: (number | null)[][];
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Tokens".
 */
export interface Tokens {
  tokens: string[];
  ids: number[];
  /**
   * why it has none
   */
  fault: string | null;
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
 * via the `definition` "ShapesReply".
 */
export interface ShapesReply {
  shapes: Shapes | null;
  /**
   * 'scanned', or why the shapes are unknown
   */
  how: string;
}
/**
 * What goes in and comes out of each module, in the tree's order; each number points into a list, -1 is none.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Shapes".
 */
export interface Shapes {
  input: number[];
  output: number[];
  dtype: number[];
  why: number[];
  /**
   * what `input` and `output` point into
   */
  sizes: number[][];
  dtypes: string[];
  /**
   * why unknown, what `why` points into
   */
  reasons: string[];
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
 * via the `definition` "FiredReply".
 */
export interface FiredReply {
  run: number;
  /**
   * modules that were not called in it; of a whole branch, its topmost
   */
  quiet: string[];
  /**
   * where it is not known, why
   */
  text: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "KindsReply".
 */
export interface KindsReply {
  kinds: KindInfo[];
  /**
   * JSON schema of a target
   */
  target: {
    [k: string]: unknown;
  };
  /**
   * JSON schema of what is measured
   */
  measure: {
    [k: string]: unknown;
  };
}
/**
 * A kind of card: what a form for it is drawn from.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "KindInfo".
 */
export interface KindInfo {
  kind: string;
  /**
   * of its button: Save, Ablate, Set, …
   */
  title: string;
  /**
   * its badge in the tree
   */
  symbol: string;
  description: string;
  /**
   * it changes what the model computes
   */
  changes: boolean;
  /**
   * JSON schema of its fields, with how to show each
   */
  form: {
    [k: string]: unknown;
  };
  /**
   * a new card's own fields, but for its id, place and name
   */
  new: {
    [k: string]: unknown;
  };
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TensorsReply".
 */
export interface TensorsReply {
  tensors: Tensor[];
}
/**
 * A tensor that has a name, for Set, Steer and Patch.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Tensor".
 */
export interface Tensor {
  name: string;
  shape: number[];
  dtype: string;
  /**
   * a kept tensor, or a value of a run
   */
  origin: string;
}
/**
 * The server that remote runs go to.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ServerReply".
 */
export interface ServerReply {
  host: string;
  models: Served[];
  /**
   * the key under which it hosts the model that was asked for
   */
  hosts: string | null;
  /**
   * why nothing can be run there
   */
  fault: string | null;
}
/**
 * A model of the server's.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Served".
 */
export interface Served {
  key: string;
  loaded: boolean;
  /**
   * jobs that wait for it
   */
  queued: number;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ExperimentParams".
 */
export interface ExperimentParams {
  experiment: Experiment;
}
/**
 * One run, written down: which model, which prompts, which interventions in which order, and what is measured.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Experiment".
 */
export interface Experiment {
  version: 2;
  /**
   * the model's name in the kernel
   */
  model: string;
  /**
   * in one pass; prompt_0, prompt_1, …
   *
   * @minItems 1
   */
  prompts: string[];
  /**
   * new tokens; 0 is a plain pass
   */
  generate: number;
  /**
   * of sampling; 0 takes the most probable token
   */
  temperature: number;
  /**
   * of all that is random; null leaves it to chance
   */
  seed: number | null;
  measure: Measure | null;
  interventions: (Save | Ablate | Set | Scale | AddNoise | Steer | Patch | Log | Code)[];
}
/**
 * What a run is about, as one number: of the next token after the prompt.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Measure".
 */
export interface Measure {
  metric: 'logit_difference' | 'probability' | 'rank' | 'kl';
  /**
   * tokens, as text with its leading space or as id
   */
  answers: (number | string)[];
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
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  at: Target;
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
  /**
   * heads of an attention module, before they are put together; null means the whole value
   */
  heads: number[] | null;
  /**
   * neurons of an MLP, before they are put together; null means the whole value
   */
  neurons: number[] | null;
  /**
   * any index, as Python writes it behind the value; instead of tokens
   */
  index: string | null;
  /**
   * which prompt of the run; null means all
   */
  prompt: number | null;
  /**
   * which steps of a generation, as '0', '1:3' or ':'; null means the kind's own
   */
  steps: string | null;
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
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  at: Target;
  kind: 'ablate';
  /**
   * what stands there instead
   */
  mode: 'zero' | 'mean' | 'reference' | 'resample';
  /**
   * the prompt whose values are taken; resampling without one draws from the prompt's own positions
   */
  source: string | null;
  /**
   * of the draw
   */
  seed: number;
}
/**
 * Put a number, or a tensor, in place of a value.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Set".
 */
export interface Set {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  at: Target;
  kind: 'set';
  /**
   * a number, or the name of a kept tensor
   */
  value: number | string;
}
/**
 * Multiply a value.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Scale".
 */
export interface Scale {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  at: Target;
  kind: 'scale';
  /**
   * what it is multiplied by
   */
  factor: number;
}
/**
 * Add Gaussian noise to a value.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "AddNoise".
 */
export interface AddNoise {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  at: Target;
  kind: 'add_noise';
  /**
   * of the noise, in the value's own units
   */
  std: number;
  /**
   * of the noise
   */
  seed: number;
}
/**
 * Add a direction: the difference of two prompts here, or a kept tensor.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Steer".
 */
export interface Steer {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  at: Target;
  kind: 'steer';
  /**
   * a prompt of what is wanted
   */
  toward: string | null;
  /**
   * a prompt of its opposite
   */
  away: string | null;
  /**
   * the name of a kept tensor, or a .safetensors file, instead of two prompts
   */
  tensor: string | null;
  /**
   * how much of it
   */
  factor: number;
}
/**
 * Put another prompt's value, or one of an earlier run, in place of this one.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Patch".
 */
export interface Patch {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  at: Target;
  kind: 'patch';
  /**
   * the prompt the value is taken from
   */
  source: string | null;
  /**
   * positions in the other prompt; null means the same ones
   */
  source_positions: number[] | null;
  /**
   * the name of a kept tensor, such as 'run 3/hidden', instead of a prompt
   */
  tensor: string | null;
}
/**
 * Write a line while the run goes.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Log".
 */
export interface Log {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  at: Target;
  kind: 'log';
  show: 'norm' | 'mean' | 'value' | 'shape';
  /**
   * before the value; empty for the site's name
   */
  text: string;
}
/**
 * Python of your own, kept word for word.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Code".
 */
export interface Code {
  /**
   * stable while the card lives; unique in its experiment
   */
  id: string;
  enabled: boolean;
  /**
   * a comment, in words
   */
  note: string;
  kind: 'code';
  code: string;
  where: 'inside' | 'before' | 'after';
  /**
   * which prompt of the run; null means all
   */
  prompt: number | null;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ExperimentReply".
 */
export interface ExperimentReply {
  experiment: Experiment;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "CodeParams".
 */
export interface CodeParams {
  experiment: Experiment;
  form: 'with' | 'cell' | 'script';
  /**
   * on the server that wb.CONFIG names
   */
  remote: boolean;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "CodeReply".
 */
export interface CodeReply {
  code: string;
  /**
   * what is wrong with which card; any error disables Run
   */
  faults: Fault[];
  /**
   * card id → the card as a sentence
   */
  words: {
    [k: string]: string;
  };
  /**
   * line of the code, from 1 → id of the card it is from
   */
  lines: {
    [k: string]: string;
  };
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
  /**
   * an error disables Run, a warning does not
   */
  level: 'error' | 'warning';
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "LiftParams".
 */
export interface LiftParams {
  /**
   * a cell's source
   */
  text: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "LiftReply".
 */
export interface LiftReply {
  experiment: Experiment;
  /**
   * what was read, in one line: 3 cards, 1 of them code
   */
  text: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "StartParams".
 */
export interface StartParams {
  experiment: Experiment;
  /**
   * on the server that wb.CONFIG names
   */
  remote: boolean;
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
  title: string | null;
  at: string;
  purpose: 'run' | 'trace' | 'verify' | 'rerun';
  experiment: Experiment;
  code: string;
  prompts: PromptResult[];
  receipts: Receipt[];
  /**
   * what the code read, saved and changed
   */
  sites: SiteUse[];
  saved: Saved[];
  logs: LogLine[];
  fault: Fault | null;
  /**
   * of a verification or a rerun
   */
  comparison: Comparison | null;
}
/**
 * What became of one prompt of a run. Numbers are of the token that comes after the prompt.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "PromptResult".
 */
export interface PromptResult {
  prompt: string;
  tokens: string[];
  /**
   * most probable next tokens of the clean run
   */
  before: TopToken[];
  /**
   * the same tokens' row after the interventions
   */
  after: TopToken[];
  /**
   * KL divergence, after from before, in nats
   */
  kl: number | null;
  measure_before: number | null;
  measure_after: number | null;
  generated: Generated[];
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
  /**
   * 1 for the most probable
   */
  rank: number;
}
/**
 * One step of a generation: the token that came, and the clean run's.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Generated".
 */
export interface Generated {
  step: number;
  token: string;
  id: number;
  probability: number;
  /**
   * what the clean run wrote in this step
   */
  clean: TopToken | null;
}
/**
 * What a card did: how often, to how many values, and how much.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Receipt".
 */
export interface Receipt {
  card: string;
  /**
   * how many times it was reached
   */
  fired: number;
  /**
   * values that it changed; null for what changes nothing by kind
   */
  changed: number | null;
  /**
   * values of the tensor it works on
   */
  total: number | null;
  norm_before: number | null;
  norm_after: number | null;
  /**
   * it did nothing, and why
   */
  warning: string | null;
  /**
   * fired 1×, changed 768 of 7,680 values, norm 41.2 → 38.9
   */
  text: string;
}
/**
 * A site that a run's code was about, whoever wrote the code: what a badge in the tree says.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "SiteUse".
 */
export interface SiteUse {
  path: string;
  port: string;
  saved: boolean;
  changed: boolean;
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
  /**
   * of which prompt; null when it belongs to none or all
   */
  prompt: number | null;
  shape: number[] | null;
  dtype: string | null;
  /**
   * a one-line summary: statistics of a tensor, repr of anything else
   */
  text: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "LogLine".
 */
export interface LogLine {
  run: number;
  text: string;
  /**
   * where its value is from, as 'transformer.h.2.mlp.output'
   */
  site: string | null;
  /**
   * id of the card that wrote it
   */
  card: string | null;
}
/**
 * Two runs side by side, or a run and its text, or a capsule and its rerun.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Comparison".
 */
export interface Comparison {
  equal: boolean;
  /**
   * bit by bit; else within the tolerance
   */
  exact: boolean;
  tolerance: number;
  /**
   * in one line
   */
  text: string;
  values: Compared[];
  /**
   * of each prompt, the next tokens that either run thinks probable
   */
  tokens: TokenPair[][];
  /**
   * in what the two experiments differ, in words
   */
  experiment: string[];
  /**
   * versions, weights and tokens that differ, in words
   */
  environment: string[];
}
/**
 * One value of two runs.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "Compared".
 */
export interface Compared {
  name: string;
  equal: boolean;
  /**
   * the largest, between values of the same shape
   */
  difference: number | null;
  text: string;
}
/**
 * A next token in two runs.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TokenPair".
 */
export interface TokenPair {
  token: string;
  id: number;
  /**
   * its probability in the first; null where that is no longer known
   */
  left: number | null;
  /**
   * in the second
   */
  right: number | null;
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
  /**
   * as a person named it
   */
  title: string | null;
  /**
   * in words, what it changed, or else what it kept
   */
  made: string;
  /**
   * when it began, ISO 8601
   */
  at: string;
  purpose: 'run' | 'trace' | 'verify' | 'rerun';
  /**
   * its tensors are in memory or on disk
   */
  held: boolean;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "TwoRunsParams".
 */
export interface TwoRunsParams {
  run: number;
  other: number;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "RenameParams".
 */
export interface RenameParams {
  run: number;
  title: string | null;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "KeepParams".
 */
export interface KeepParams {
  run: number;
  /**
   * of the saved value
   */
  name: string;
  /**
   * the name that wb.tensor(...) will know it by
   */
  keep_as: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "CapsuleParams".
 */
export interface CapsuleParams {
  run: number;
  /**
   * null for a name made of the run's title or number
   */
  path: string | null;
}
/**
 * What is in a capsule.
 *
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "CapsuleReply".
 */
export interface CapsuleReply {
  path: string;
  bytes: number;
  headline: string;
  experiment: Experiment;
  /**
   * class, parameters and revision of the model it was made with
   */
  model: string;
  versions: {
    [k: string]: string;
  };
  /**
   * code that is not of this history: it runs only with the person's consent
   */
  foreign: string[];
  /**
   * in what this kernel differs from the one it was made in
   */
  differs: string[];
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "PathParams".
 */
export interface PathParams {
  /**
   * a file, below the kernel's folder unless absolute
   */
  path: string;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "RerunParams".
 */
export interface RerunParams {
  path: string;
  /**
   * the model's name here, where it differs
   */
  model: string | null;
  /**
   * the person has read its code cards and lets them run
   */
  consent: boolean;
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
  /**
   * of which prompt a saved value is; null if of none or all
   */
  prompt: number | null;
}
/**
 * This interface was referenced by `Protocol`'s JSON-Schema
 * via the `definition` "ViewParams".
 */
export interface ViewParams {
  /**
   * below zero: what `wb.look` showed that is no run's
   */
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
  /**
   * of which prompt, where the run as a whole is looked at
   */
  prompt: number;
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
  /**
   * row of the batch that is shown
   */
  batch: number;
  /**
   * rows of the batch
   */
  rows: number;
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
  /**
   * row of the batch that is shown
   */
  batch: number;
  /**
   * rows of the batch
   */
  rows: number;
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
  /**
   * row of the batch that is shown
   */
  batch: number;
  /**
   * rows of the batch
   */
  rows: number;
  kind: 'attention';
  layer: number | null;
  /**
   * of the model; 1 where the value is of one layer only
   */
  layers: number;
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
  /**
   * row of the batch that is shown
   */
  batch: number;
  /**
   * rows of the batch
   */
  rows: number;
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
  /**
   * row of the batch that is shown
   */
  batch: number;
  /**
   * rows of the batch
   */
  rows: number;
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
  /**
   * row of the batch that is shown
   */
  batch: number;
  /**
   * rows of the batch
   */
  rows: number;
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
