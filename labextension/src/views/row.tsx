/** One row of the tree: name, badges, class, shape, and the actions while it is in hand. */

import { memo } from 'react';
import type { Tree } from '../tree';

interface Where {
  row: number;
  fold: boolean;
}

interface Props extends Where {
  id: string;
  tree: Tree;
  level: number;
  /** It only leads to what was searched for. */
  leads: boolean;
  top: number;
  height: number;
  open: boolean;
  active: boolean;
  into: string;
  out: string;
  words: string;
  badges: string;
  symbols: Map<string, string>;
  silent: boolean;
  /** Under the pointer, or active: what can be done at it is there. */
  inHand: boolean;
  hover(line: Where): void;
  turn(line: Where, open: boolean): void;
  point(line: Where): void;
  act(kind: string, line: Where): void;
  more(line: Where, box: DOMRect): void;
}

const QUICK = [
  ['save', 'Save', 'Save output'],
  ['ablate', 'Ablate', 'Ablate']
] as const;

export const Row = memo(function Row(props: Props) {
  const { id, tree, row, fold, level, top, height, open, active, into, out, words, symbols, silent, inHand } = props;
  const { turn, point, hover, act, more } = props;
  const line = { row, fold };
  const path = (fold ? foldPath(tree, row) : tree.path(row)) || 'model';
  const cls = tree.cls(row);
  const count = fold ? tree.count(row) : 1;
  const standard = tree.standard(row);
  const short = standard && !fold ? shortened(standard, tree.name(row)) : '';
  const name = row === 0 ? tree.name(0) || cls : fold ? path.slice(path.lastIndexOf('.') + 1) : tree.name(row);
  const expandable = fold || tree.children[row] > 0;
  const badges = props.badges ? props.badges.split(' ') : [];
  const shape = into ? `${into} → ${out}` : out;
  const parameters = `${(tree.parameters(row) * count).toLocaleString('en')} parameters`;
  const label = [
    path,
    fold ? `${cls} ×${count}` : cls,
    shape,
    badges.length ? `has ${badges.map(badge => badge.replace('_', ' ')).join(', ')}` : '',
    silent ? 'not called in the last run' : ''
  ];
  return (
    <div
      id={id}
      className={`wb-row${active ? ' wb-active' : ''}${silent ? ' wb-silent' : ''}${props.leads ? ' wb-leads' : ''}`}
      role="treeitem"
      aria-label={label.filter(Boolean).join(' · ')}
      aria-level={level + 1}
      aria-expanded={expandable ? open : undefined}
      aria-selected={active}
      style={{ height, transform: `translateY(${top}px)`, paddingLeft: 4 + level * 12 }}
      title={[path, standard, `${cls} · ${parameters}`, words, silent ? 'not called in the last run' : '']
        .filter(Boolean)
        .join('\n')}
      onMouseMove={() => hover(line)}
      onMouseOver={() => hover(line)}
      onClick={() => point(line)}
      onDoubleClick={() => expandable && turn(line, !open)}
      onContextMenu={event => {
        event.preventDefault();
        event.stopPropagation();
        more(line, new DOMRect(event.clientX, event.clientY, 0, 0));
      }}
    >
      <span
        className="wb-twist"
        aria-hidden
        onClick={event => {
          event.stopPropagation();
          point(line);
          turn(line, !open);
        }}
      >
        {expandable ? (open ? '▾' : '▸') : ''}
      </span>
      <span className="wb-name">{name}</span>
      {short && (
        <span className="wb-standard" aria-hidden>
          {short}
        </span>
      )}
      {badges.map(badge => (
        <span key={badge} className={`wb-badge wb-badge-${badge}`} aria-hidden>
          {symbols.get(badge) ?? '•'}
        </span>
      ))}
      {silent && <span className="wb-dot" aria-hidden />}
      <span className="wb-middle">
        <span className="wb-class">{row === 0 ? cls : fold ? `${cls} ×${count}` : cls}</span>
        {inHand && (
          <span className="wb-actions">
            {QUICK.map(([kind, word, title]) => (
              <button
                key={kind}
                tabIndex={active ? 0 : -1}
                aria-label={title}
                title={fold ? `${title} of all ${count}` : title}
                onClick={event => {
                  event.stopPropagation();
                  point(line);
                  act(kind, line);
                }}
              >
                {word}
              </button>
            ))}
            <button
              tabIndex={active ? 0 : -1}
              aria-label="More actions"
              aria-haspopup="true"
              title="Set, Scale, Add noise, Steer, Patch, Log, Code …"
              onClick={event => {
                event.stopPropagation();
                more(line, event.currentTarget.getBoundingClientRect());
              }}
            >
              ⋯
            </button>
          </span>
        )}
      </span>
      <span className="wb-shape">
        {into && <span className="wb-into">{into} → </span>}
        {out}
      </span>
    </div>
  );
});

/** `transformer.h.0–3` */
function foldPath(tree: Tree, first: number): string {
  let last = first;
  for (const each of tree.repeats(first)) {
    last = each;
  }
  return `${tree.path(first)}–${tree.name(last)}`;
}

/** The end of a standard name, where it says more than the module's own name. */
function shortened(standard: string, own: string): string {
  const short = standard.split('.').pop() ?? '';
  return short === own ? '' : short;
}
