/** Everything that can be done at a module, beside the pointer: a column of buttons that closes by itself. */

import { useEffect, useLayoutEffect, useRef, useState } from 'react';
import type { KeyboardEvent } from 'react';
import { createPortal } from 'react-dom';
import type { KindInfo } from '../generated/protocol';
import type { Tree } from '../tree';
import { Icon } from './icons';

export interface Place {
  row: number;
  fold: boolean;
  x: number;
  y: number;
  /** The upper edge of what it belongs to: where there is no room below, it stands above. */
  above: number;
}

interface Props {
  place: Place;
  tree: Tree;
  kinds: KindInfo[];
  add(kind: string, ...paths: string[]): void;
  close(): void;
}

export function Actions({ place, tree, kinds, add, close }: Props) {
  const { row, fold } = place;
  const everywhere = fold ? [...tree.repeats(row)] : tree.everywhere(row);
  const [all, setAll] = useState(fold);
  const host = useRef<HTMLDivElement>(null);
  const [corner, setCorner] = useState({ left: place.x, top: place.y });

  useLayoutEffect(() => {
    const box = host.current?.getBoundingClientRect();
    if (box) {
      const left = Math.max(4, Math.min(place.x - box.width, window.innerWidth - box.width - 4));
      const below = place.y + box.height < window.innerHeight - 4;
      setCorner({ left, top: below ? place.y : Math.max(4, place.above - box.height) });
    }
    host.current?.querySelector('button')?.focus();
  }, [place]);
  useEffect(() => {
    const leave = (event: Event) => {
      if (!host.current?.contains(event.target as Node)) {
        close();
      }
    };
    document.addEventListener('pointerdown', leave, true);
    return () => document.removeEventListener('pointerdown', leave, true);
  });

  const onKeyDown = (event: KeyboardEvent) => {
    const buttons = [...(host.current?.querySelectorAll('button') ?? [])];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to !== undefined) {
      buttons[(to + buttons.length) % buttons.length].focus();
    } else if (event.key === 'Escape' || event.key === 'Tab') {
      close();
    } else if (event.key === ' ' || event.key === 'Enter') {
      event.stopPropagation(); // the button's own
      return;
    } else {
      const letter = event.key.toLowerCase();
      const next = [...buttons.slice(at + 1), ...buttons].find(button =>
        button.dataset['name']?.toLowerCase().startsWith(letter)
      );
      if (event.key.length !== 1 || !next) {
        return;
      }
      next.focus();
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const path = (all ? tree.pattern(row) : tree.path(row)) || 'model';
  const act = (kind: KindInfo) => {
    const placed = 'at' in ((kind.form['properties'] ?? {}) as object);
    add(kind.kind, ...(all && placed ? everywhere : [row]).map(each => tree.path(each)));
    close();
  };
  return createPortal(
    <div
      className="wb-float"
      role="toolbar"
      aria-orientation="vertical"
      aria-label={`Actions on ${path}`}
      ref={host}
      style={corner}
      onKeyDown={onKeyDown}
      onContextMenu={event => event.preventDefault()}
    >
      <code className="wb-float-title" title={path}>
        <bdi>{path}</bdi>
      </code>
      {kinds.map(kind => (
        <button
          key={kind.kind}
          data-name={titled(kind)}
          aria-label={titled(kind)}
          title={kind.description}
          onClick={() => act(kind)}
        >
          <span className={`wb-badge wb-badge-${kind.kind}`} aria-hidden>
            {kind.symbol}
          </span>
          {titled(kind)}
        </button>
      ))}
      <hr />
      {everywhere.length > 1 && (
        <button
          role="checkbox"
          aria-checked={all}
          data-name="Apply to all"
          disabled={fold}
          title={tree.pattern(row)}
          onClick={() => setAll(!all)}
        >
          <span className="wb-badge" aria-hidden>
            {all ? '☑' : '☐'}
          </span>
          Apply to all {everywhere.length}
        </button>
      )}
      <button
        data-name="Copy path"
        onClick={() => {
          void navigator.clipboard.writeText(tree.path(row));
          close();
        }}
      >
        <span className="wb-badge" aria-hidden>
          <Icon sign="copy" />
        </span>
        Copy path
      </button>
    </div>,
    document.body
  );
}

const titled = (kind: KindInfo): string => (kind.kind === 'save' ? 'Save output' : kind.title);
