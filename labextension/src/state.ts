/** The bench's state: what a person made, and what the kernel last said of it. */

import { empty } from './experiment';
import type {
  CapsuleReply,
  CodeParams,
  Comparison,
  Experiment,
  Fault,
  KindsReply,
  LogLine,
  ModelInfo,
  RunResult,
  RunSummary,
  ServerReply,
  Shapes,
  Tensor,
  TokensReply
} from './generated/protocol';
import type { Tree } from './tree';

export type Phase = 'no notebook' | 'no kernel' | 'no workbench' | 'no model' | 'ready';
export type Form = CodeParams['form'];

/** Two runs, and what the kernel says of both. */
export interface Compared {
  comparison: Comparison;
  left: RunResult;
  right: RunResult;
}

/** What the kernel said, that is of no worth once it is another kernel. */
interface Told {
  models: ModelInfo[];
  /** The line that wraps the chosen model, when it is a plain module. */
  wrap: string;
  kinds: KindsReply | null;
  tree: Tree | null;
  /** The model whose tree it is. */
  treeFor: string;
  shapes: Shapes | null;
  how: string;
  tokens: TokensReply | null;
  /** Modules that were not called in the run that is shown. */
  quiet: string[];
  code: string;
  lines: Record<string, string>;
  words: Record<string, string>;
  faults: Fault[];
  /** The experiment that `faults` and `code` are of: while it is an older one, the kernel has not judged this one yet. */
  judged: Experiment | null;
  run: Pick<RunSummary, 'run' | 'state' | 'headline' | 'purpose'> | null;
  runs: RunSummary[];
  tensors: Tensor[];
  progress: { text: string; done: number; total: number } | null;
  /** What came of running the code as text; `of` is that text. */
  verified: { run: number; equal: boolean; text: string; of: string } | null;
  /** The server that remote runs go to, as it was last seen. */
  server: ServerReply | null;
  trouble: Fault | null;
}

export interface State extends Told {
  phase: Phase;
  /** What the experiment belongs to: a notebook's path, or a name of the widget's. */
  place: string | null;
  experiment: Experiment;
  selected: string | null;
  form: Form;
  /** Runs go to the server. */
  remote: boolean;
  result: RunResult | null;
  logs: LogLine[];
  compared: Compared | null;
  /** The capsule that was opened last. */
  capsule: CapsuleReply | null;
  /** What happened to the kernel, in words, until the next run. */
  notice: string | null;
  canUndo: boolean;
  canRedo: boolean;
}

export const TOLD: Told = {
  models: [],
  wrap: '',
  kinds: null,
  tree: null,
  treeFor: '',
  shapes: null,
  how: '',
  tokens: null,
  quiet: [],
  code: '',
  lines: {},
  words: {},
  faults: [],
  judged: null,
  run: null,
  runs: [],
  tensors: [],
  progress: null,
  verified: null,
  server: null,
  trouble: null
};

export const START: State = {
  ...TOLD,
  phase: 'no notebook',
  place: null,
  experiment: empty(),
  selected: null,
  form: 'with',
  remote: false,
  result: null,
  logs: [],
  compared: null,
  capsule: null,
  notice: null,
  canUndo: false,
  canRedo: false
};
