/** The module tree: one row says all about a module; only the rows in sight exist as elements. */

import { useVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useMemo, useRef, useState } from 'react';
import type { KeyboardEvent } from 'react';
import type { Card } from '../experiment';
import { targetOf } from '../experiment';
import type { ModuleRow, Shape } from '../rows';

interface Props {
  rows: ModuleRow[];
  shapes: Record<string, Shape>;
  how: string;
  cards: Card[];
  add(kind: Card['kind'], path: string): void;
}

const HEIGHT = 24;
const OPEN_DEPTH = 2;

export function Tree({ rows, shapes, how, cards, add }: Props) {
  const [closed, setClosed] = useState<Set<string>>(new Set());
  const [filter, setFilter] = useState('');
  const [active, setActive] = useState('');
  const scroller = useRef<HTMLDivElement>(null);

  useEffect(() => {
    setClosed(new Set(rows.filter(row => row.depth >= OPEN_DEPTH && row.children > 0).map(row => row.path)));
  }, [rows]);
  const shown = useMemo(() => visible(rows, closed, filter), [rows, closed, filter]);
  const badges = useMemo(() => badgesOf(cards), [cards]);
  const virtual = useVirtualizer({
    count: shown.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => HEIGHT,
    overscan: 8
  });

  const toggle = (path: string, open: boolean) =>
    setClosed(before => {
      const next = new Set(before);
      if (open) {
        next.delete(path);
      } else {
        next.add(path);
      }
      return next;
    });

  const go = (index: number) => {
    const to = Math.max(0, Math.min(shown.length - 1, index));
    setActive(shown[to].path);
    virtual.scrollToIndex(to);
  };

  const onKeyDown = (event: KeyboardEvent) => {
    if (!shown.length || event.ctrlKey || event.metaKey || event.altKey || event.target !== event.currentTarget) {
      return;
    }
    const index = Math.max(
      0,
      shown.findIndex(row => row.path === active)
    );
    const row = shown[index];
    const open = row.children > 0 && !closed.has(row.path);
    switch (event.key) {
      case 'ArrowDown':
        go(index + 1);
        break;
      case 'ArrowUp':
        go(index - 1);
        break;
      case 'Home':
        go(0);
        break;
      case 'End':
        go(shown.length - 1);
        break;
      case 'ArrowRight':
        if (open) {
          go(index + 1);
        } else if (row.children) {
          toggle(row.path, true);
        }
        break;
      case 'ArrowLeft':
        if (open) {
          toggle(row.path, false);
        } else {
          go(shown.findIndex(each => each.path === parent(row.path)));
        }
        break;
      case 's':
        add('save', row.path);
        break;
      case 'a':
        add('ablate', row.path);
        break;
      default:
        return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <section className="wb-section wb-grow" aria-label="Module tree">
      <header>
        <h2>Modules</h2>
        <span className="wb-quiet" title={how}>
          {how === 'scanned' ? 'shapes: scanned' : how}
        </span>
      </header>
      <input
        className="wb-field"
        type="search"
        aria-label="Filter modules"
        placeholder="Filter by name or class, e.g. mlp"
        value={filter}
        onChange={event => setFilter(event.target.value)}
      />
      <div
        className="wb-tree"
        role="tree"
        aria-label="Modules"
        tabIndex={0}
        ref={scroller}
        aria-activedescendant={active !== '' || shown.length ? rowId(active) : undefined}
        onKeyDown={onKeyDown}
      >
        <div role="presentation" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
          {virtual.getVirtualItems().map(item => {
            const row = shown[item.index];
            const open = row.children > 0 && (filter !== '' || !closed.has(row.path));
            const [into, out] = shapeTexts(shapes[row.path]);
            const shape = into + out;
            const path = row.path || 'model';
            return (
              <div
                key={row.path}
                id={rowId(row.path)}
                className={`wb-row${row.path === active ? ' wb-active' : ''}`}
                role="treeitem"
                aria-label={[path, row.cls, shape].filter(Boolean).join(' · ')}
                aria-level={row.depth + 1}
                aria-expanded={row.children ? open : undefined}
                aria-selected={row.path === active}
                style={{
                  height: HEIGHT,
                  transform: `translateY(${item.start}px)`,
                  paddingLeft: 4 + row.depth * 12
                }}
                title={`${path}\n${row.cls} · ${row.parameters.toLocaleString()} parameters${why(shapes[row.path])}`}
                onClick={() => {
                  setActive(row.path);
                  scroller.current?.focus();
                }}
                onDoubleClick={() => row.children && toggle(row.path, !open)}
              >
                <span
                  className="wb-twist"
                  aria-hidden
                  onClick={event => {
                    event.stopPropagation();
                    toggle(row.path, !open);
                  }}
                >
                  {row.children ? (open ? '▾' : '▸') : ''}
                </span>
                <span className="wb-name">{row.name || row.cls}</span>
                {badges.get(row.path)?.map(badge => (
                  <span key={badge} className={`wb-badge wb-badge-${badge}`} aria-hidden>
                    {badge === 'save' ? '●' : '⌀'}
                  </span>
                ))}
                <span className="wb-middle">
                  <span className="wb-class">{row.name ? row.cls : ''}</span>
                  <span className="wb-actions">
                    <button tabIndex={row.path === active ? 0 : -1} onClick={() => add('save', row.path)} title="Save output (s)">
                      Save output
                    </button>
                    <button tabIndex={row.path === active ? 0 : -1} onClick={() => add('ablate', row.path)} title="Ablate (a)">
                      Ablate
                    </button>
                  </span>
                </span>
                <span className="wb-shape">
                  <span className="wb-into">{into}</span>
                  {out}
                </span>
              </div>
            );
          })}
        </div>
        {rows.length > 0 && shown.length === 0 && <p className="wb-quiet">No module matches “{filter}”.</p>}
      </div>
    </section>
  );
}

/** Rows not below a closed one; with a filter, the matches and what leads to them. */
function visible(rows: ModuleRow[], closed: Set<string>, filter: string): ModuleRow[] {
  if (filter) {
    const wanted = filter.toLowerCase().replaceAll('*', '');
    const keep = new Set<string>();
    for (const row of rows) {
      if (row.path.toLowerCase().includes(wanted) || row.cls.toLowerCase().includes(wanted)) {
        for (let path = row.path; ; path = parent(path)) {
          keep.add(path);
          if (path === '') {
            break;
          }
        }
      }
    }
    return rows.filter(row => keep.has(row.path));
  }
  const shown: ModuleRow[] = [];
  let below = Infinity; // depth of the closed row that hides what follows
  for (const row of rows) {
    if (row.depth > below) {
      continue;
    }
    below = closed.has(row.path) ? row.depth : Infinity;
    shown.push(row);
  }
  return shown;
}

const parent = (path: string): string => path.split('.').slice(0, -1).join('.');
const rowId = (path: string): string => `wb-row-${path.replace(/[^\w]/g, '-')}`;

function badgesOf(cards: Card[]): Map<string, Card['kind'][]> {
  const badges = new Map<string, Card['kind'][]>();
  for (const card of cards.filter(each => each.enabled)) {
    const path = targetOf(card)?.path;
    if (path === undefined) {
      continue;
    }
    const have = badges.get(path) ?? [];
    badges.set(path, have.includes(card.kind) ? have : [...have, card.kind]);
  }
  return badges;
}

const times = (shape: number[] | null | undefined): string => (shape ? shape.join('×') || 'scalar' : '');

/** What goes in, where it differs, with an arrow; and what comes out. */
function shapeTexts(shape: Shape | undefined): [string, string] {
  const [before, after] = [times(shape?.input), times(shape?.output)];
  return before && after && before !== after ? [`${before} → `, after] : ['', after || before];
}

const why = (shape: Shape | undefined): string => (shape?.why ? `\nshape unknown: ${shape.why}` : '');
