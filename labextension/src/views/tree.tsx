/** The module tree: one row says all about a module; only the rows in sight exist as elements. */

import { useVirtualizer } from '@tanstack/react-virtual';
import { memo, useCallback, useDeferredValue, useEffect, useMemo, useRef, useState } from 'react';
import type { KeyboardEvent } from 'react';
import type { Card } from '../experiment';
import { targetOf } from '../experiment';
import type { KindInfo, Shapes } from '../generated/protocol';
import { briefly, shapeOf } from '../tree';
import type { Line, Opened, Tree } from '../tree';
import { Actions } from './actions';
import type { Place } from './actions';
import { Row } from './row';

interface Props {
  tree: Tree | null;
  shapes: Shapes | null;
  how: string;
  kinds: KindInfo[];
  cards: Card[];
  quiet: string[];
  add(kind: string, ...paths: string[]): void;
}

const HEIGHT = 24;
const TYPED = 700; // ms within which letters belong to one name that is looked for

export const Modules = memo(function Modules({ tree, shapes, how, kinds, cards, quiet, add }: Props) {
  const [opened, setOpened] = useState<Opened | null>(null);
  const [filter, setFilter] = useState('');
  const query = useDeferredValue(filter.trim());
  const [active, setActive] = useState<{ row: number; fold: boolean }>({ row: 0, fold: false });
  const [pointed, setPointed] = useState<{ row: number; fold: boolean } | null>(null);
  const [descending, setDescending] = useState(false);
  const [more, setMore] = useState<Place | null>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const typed = useRef({ text: '', at: 0 });

  const [seen, setSeen] = useState<Tree | null>(null); // the same modules again, as after a run that loaded weights, stay open
  if (tree !== seen) {
    setSeen(tree);
    setOpened(tree && (seen?.same(tree) ? opened : tree.opening()));
  }
  const lines = useMemo<Line[]>(() => {
    if (!tree || !opened || tree !== seen) {
      return [];
    }
    return query ? tree.search(query, shapes) : tree.lines(opened);
  }, [tree, seen, opened, query, shapes]);
  const badges = useMemo(() => (tree ? badgesOf(tree, cards) : new Map<number, string[]>()), [tree, cards]);
  const silent = useMemo(() => (tree ? silentOf(tree, quiet) : null), [tree, quiet]);
  const symbols = useMemo(() => new Map(kinds.map(kind => [kind.kind, kind.symbol])), [kinds]);

  const virtual = useVirtualizer({
    count: lines.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => HEIGHT,
    overscan: 4
  });

  const isOpen = (line: Line): boolean =>
    query ? !!tree?.children[line.row] : !!(line.fold ? opened?.folds[line.row] : opened?.rows[line.row]);
  const turnAll = (open: boolean) => {
    performance.mark('workbench:tree');
    performance.mark('workbench:tree told');
    setOpened(tree && tree.everything(open));
  };
  const turn = useCallback((line: { row: number; fold: boolean }, open: boolean) => {
    setOpened(before => {
      if (!before) {
        return before;
      }
      const part = line.fold ? 'folds' : 'rows';
      const next = { ...before, [part]: before[part].slice() };
      next[part][line.row] = open ? 1 : 0;
      return next;
    });
  }, []);
  const point = useCallback((line: { row: number; fold: boolean }) => {
    setActive({ row: line.row, fold: line.fold });
    scroller.current?.focus({ preventScroll: true });
  }, []);
  // By moves and not by entering: a row that comes to lie under the pointer was never entered.
  const hover = useCallback((line: { row: number; fold: boolean }) => {
    setPointed(now => (now?.row === line.row && now.fold === line.fold ? now : { row: line.row, fold: line.fold }));
  }, []);
  const openMore = useCallback((line: { row: number; fold: boolean }, box: DOMRect) => {
    setActive({ row: line.row, fold: line.fold });
    setMore({ row: line.row, fold: line.fold, x: box.right, y: box.bottom, above: box.top });
  }, []);
  const act = useCallback(
    (kind: string, line: { row: number; fold: boolean }) => {
      if (tree) {
        add(kind, ...(line.fold ? [...tree.repeats(line.row)] : [line.row]).map(row => tree.path(row)));
      }
    },
    [tree, add]
  );

  // How long it takes from asking the kernel, or from a click, until the rows are drawn: for the browser's own tools.
  useEffect(() => {
    if (lines.length && ['workbench:tree', 'workbench:tree told'].every(each => performance.getEntriesByName(each).length)) {
      performance.measure('workbench:tree drawn', 'workbench:tree');
      performance.clearMarks('workbench:tree');
      performance.clearMarks('workbench:tree told');
    }
  }, [lines]);

  // Out of a search, the row in hand is still in sight.
  const before = useRef(query);
  useEffect(() => {
    if (before.current && !query && tree && opened) {
      const next = tree.reveal(opened, active.row);
      setOpened(next);
      const at = tree.lines(next).findIndex(line => line.row === active.row && line.fold === active.fold);
      virtual.scrollToIndex(Math.max(0, at), { align: 'center' });
    } else if (!before.current && query) {
      virtual.scrollToIndex(0);
    }
    before.current = query;
  });

  const at = useMemo(
    () => Math.max(0, lines.findIndex(line => line.row === active.row && line.fold === active.fold)),
    [lines, active]
  );
  const go = (index: number) => {
    const to = Math.max(0, Math.min(lines.length - 1, index));
    setActive({ row: lines[to].row, fold: lines[to].fold });
    virtual.scrollToIndex(to);
  };
  // Down from the search, to the first that fits all that was typed: what is shown may be some letters behind.
  useEffect(() => {
    if (descending && query === filter.trim()) {
      setDescending(false);
      if (lines.length) {
        go(Math.max(0, lines.findIndex(line => !line.leads)));
        scroller.current?.focus();
      }
    }
  });
  const element = (line: Line) => document.getElementById(idOf(line));
  const out = (line: Line): number => {
    for (let index = at - 1; index >= 0; index -= 1) {
      if (lines[index].level < line.level) {
        return index;
      }
    }
    return 0;
  };

  const onKeyDown = (event: KeyboardEvent) => {
    if (!tree || !lines.length || event.target !== event.currentTarget) {
      return;
    }
    const line = lines[at];
    const expandable = line.fold || (tree.children[line.row] > 0 && !query);
    const open = isOpen(line);
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key === 'c') {
      void navigator.clipboard.writeText(tree.path(line.row));
    } else if (command || (event.altKey && event.key !== 'ContextMenu')) {
      return;
    } else if (event.key === 'ArrowDown') {
      go(at + 1);
    } else if (event.key === 'ArrowUp') {
      go(at - 1);
    } else if (event.key === 'PageDown' || event.key === 'PageUp') {
      const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / HEIGHT) - 1);
      go(at + (event.key === 'PageDown' ? page : -page));
    } else if (event.key === 'Home') {
      go(0);
    } else if (event.key === 'End') {
      go(lines.length - 1);
    } else if (event.key === 'ArrowRight') {
      if (expandable && !open) {
        turn(line, true);
      } else if (expandable || query) {
        go(at + 1);
      }
    } else if (event.key === 'ArrowLeft') {
      if (expandable && open) {
        turn(line, false);
      } else {
        go(out(line));
      }
    } else if (event.key === '*') {
      setOpened(now => now && siblings(tree, now, line));
    } else if (event.key === 'Enter' && expandable) {
      turn(line, !open);
    } else if (event.key === 'Enter' || event.key === 'ContextMenu' || (event.shiftKey && event.key === 'F10')) {
      const box = element(line)?.getBoundingClientRect();
      if (box) {
        setMore({ row: line.row, fold: line.fold, x: box.right, y: box.bottom, above: box.top });
      }
    } else if (event.key.length === 1 && event.key !== ' ') {
      // As in a file tree: letters go to the next row whose name begins with them.
      const now = Date.now();
      const text = (now - typed.current.at < TYPED ? typed.current.text : '') + event.key.toLowerCase();
      typed.current = { text, at: now };
      const from = text.length > 1 ? at : at + 1;
      for (let step = 0; step < lines.length; step += 1) {
        const index = (from + step) % lines.length;
        if (tree.name(lines[index].row).toLowerCase().startsWith(text)) {
          go(index);
          break;
        }
      }
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const items = virtual.getVirtualItems();
  const inSight = items.some(item => item.index === at);
  return (
    <section className="wb-section wb-grow" aria-label="Module tree">
      <header>
        <h2>Modules</h2>
        <span className="wb-quiet" title={how}>
          {how === 'scanned' ? 'shapes: scanned' : how}
        </span>
        {tree && tree.length > 1 && (
          <span className="wb-links">
            <button title="Open every module" onClick={() => turnAll(true)}>
              expand
            </button>
            <button title="Close every module" onClick={() => turnAll(false)}>
              fold
            </button>
          </span>
        )}
      </header>
      <input
        className="wb-field"
        type="search"
        aria-label="Filter modules"
        placeholder="name, class or shape: *mlp*, 1×8×128"
        title="Several words must all fit. * stands for anything: *mlp*, Linear, 1×*×128"
        spellCheck={false}
        value={filter}
        onChange={event => setFilter(event.target.value)}
        onKeyDown={event => {
          if (event.key === 'ArrowDown') {
            event.preventDefault();
            setDescending(true);
          } else if (event.key === 'Escape' && filter) {
            event.stopPropagation();
            setFilter('');
          }
        }}
      />
      <div
        className="wb-tree"
        role="tree"
        aria-label="Modules"
        tabIndex={0}
        ref={scroller}
        aria-activedescendant={inSight && tree ? idOf(lines[at]) : undefined}
        onKeyDown={onKeyDown}
        onMouseLeave={() => setPointed(null)}
      >
        <div role="presentation" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
          {tree &&
            items.map(item => {
              const line = lines[item.index];
              const shape = shapeOf(shapes, line.row);
              return (
                <Row
                  key={`${line.row}${line.fold}`}
                  id={idOf(line)}
                  tree={tree}
                  row={line.row}
                  fold={line.fold}
                  level={line.level}
                  leads={line.leads === true}
                  top={item.start}
                  height={HEIGHT}
                  open={isOpen(line)}
                  active={item.index === at}
                  into={shape.into}
                  out={shape.out}
                  words={shape.words}
                  badges={(line.fold ? (isOpen(line) ? [] : foldBadges(tree, badges, line.row)) : badges.get(line.row))?.join(' ') ?? ''}
                  symbols={symbols}
                  silent={!line.fold && silent?.[line.row] === 1}
                  inHand={item.index === at || (pointed?.row === line.row && pointed.fold === line.fold)}
                  hover={hover}
                  turn={turn}
                  point={point}
                  act={act}
                  more={openMore}
                />
              );
            })}
        </div>
        {tree && tree.length > 0 && lines.length === 0 && <p className="wb-quiet">No module matches “{query}”.</p>}
      </div>
      {tree && lines.length > 0 && <Foot tree={tree} line={lines[at]} words={shapeOf(shapes, lines[at].row).words} />}
      {more && tree && (
        <Actions
          place={more}
          tree={tree}
          kinds={kinds}
          add={add}
          close={() => {
            setMore(null);
            scroller.current?.focus({ preventScroll: true });
          }}
        />
      )}
    </section>
  );
});

/** Of the row in hand, what has no room on it. */
function Foot({ tree, line, words }: { tree: Tree; line: Line; words: string }) {
  const { row, fold } = line;
  const count = fold ? tree.count(row) : 1;
  const exactly = tree.parameters(row) * count;
  const parameters = `${briefly(exactly)} parameters`;
  const parts = [tree.cls(row), fold ? `${count} alike` : '', parameters, words];
  const standard = tree.standard(row);
  return (
    <p
      className="wb-foot"
      role="note"
      aria-label="The module in hand"
      title={`${exactly.toLocaleString('en')} parameters\n${words}`}
    >
      <span className="wb-foot-names">
        <code title={tree.path(row)}>
          <bdi>{tree.path(row) || tree.name(row)}</bdi>
        </code>
        {standard && !fold && <i>{standard}</i>}
      </span>
      <span>{parts.filter(Boolean).join(' · ')}</span>
    </p>
  );
}

const idOf = (line: { row: number; fold: boolean }): string => `wb-row-${line.row}${line.fold ? 'f' : ''}`;

/** Open all of a row's siblings, and what is folded among them. */
function siblings(tree: Tree, opened: Opened, line: Line): Opened {
  const next = { rows: opened.rows.slice(), folds: opened.folds.slice() };
  const above = tree.parent(line.row);
  const [from, to] = above < 0 ? [0, tree.length] : [above + 1, tree.ends[above]];
  for (let row = from; row < to; row = tree.ends[row]) {
    next.rows[row] = 1;
    next.folds[row] = 1;
  }
  return next;
}

function badgesOf(tree: Tree, cards: Card[]): Map<number, string[]> {
  const badges = new Map<number, string[]>();
  for (const card of cards) {
    const path = card.enabled ? targetOf(card)?.path : undefined;
    const row = path === undefined ? -1 : tree.find(path);
    if (row >= 0) {
      const have = badges.get(row) ?? [];
      badges.set(row, have.includes(card.kind) ? have : [...have, card.kind]);
    }
  }
  return badges;
}

/** A fold wears what stands on any module in it. */
function foldBadges(tree: Tree, badges: Map<number, string[]>, first: number): string[] {
  const found = new Set<string>();
  for (const [row, kinds] of badges) {
    if (row >= first && row < tree.folds[first]) {
      kinds.forEach(kind => found.add(kind));
    }
  }
  return [...found];
}

/** Rows that were not called in the last run: those named, and all below them. */
function silentOf(tree: Tree, quiet: string[]): Uint8Array {
  const silent = new Uint8Array(tree.length);
  for (const path of quiet) {
    const row = tree.find(path);
    if (row >= 0) {
      silent.fill(1, row, tree.ends[row]);
    }
  }
  return silent;
}
