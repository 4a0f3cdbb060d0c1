/** The workbench in a cell: where an experiment is made and where it is read, side by side. */

import { useCallback, useEffect, useRef } from 'react';
import type { Bench } from '../bench';
import type { Draw } from '../views/code';
import { Panel } from '../views/panel';
import { KEPT } from '../views/kept';
import type { Kept } from '../views/kept';
import { Results } from '../views/results';

const BESIDE = { insert: null, save: null };

export function App({ bench }: { bench: Bench }) {
  const host = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const keep = (event: Event) => event.stopPropagation(); // a notebook has shortcuts of its own
    const element = host.current;
    element?.addEventListener('keydown', keep);
    return () => element?.removeEventListener('keydown', keep);
  }, []);
  const keep = useCallback((kept: Kept) => {
    host.current?.dispatchEvent(new CustomEvent(KEPT, { bubbles: true, detail: kept }));
  }, []);
  return (
    <div className="wb-app" ref={host}>
      <div className="wb-panel" role="region" aria-label="Workbench">
        <Panel bench={bench} draw={draw} beside={BESIDE} />
      </div>
      <div className="wb-results">
        <Results bench={bench} keep={keep} />
      </div>
    </div>
  );
}

const PARTS = /("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(#.*)|\b(with|as|for|in|import|from|def|return|if|else|not|and|or|None|True|False)\b/g;

/** Python, its words, texts and comments in colours of their own. */
const draw: Draw = host => {
  const pre = document.createElement('pre');
  pre.setAttribute('aria-label', 'Python of the experiment');
  pre.tabIndex = 0;
  host.append(pre);
  return {
    show: code => {
      pre.textContent = '';
      let from = 0;
      for (const found of code.matchAll(PARTS)) {
        pre.append(code.slice(from, found.index));
        const part = document.createElement('span');
        part.className = found[1] ? 'wb-literal' : found[2] ? 'wb-comment' : 'wb-keyword';
        part.textContent = found[0];
        pre.append(part);
        from = found.index + found[0].length;
      }
      pre.append(code.slice(from));
    },
    dispose: () => pre.remove()
  };
};
