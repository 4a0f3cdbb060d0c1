/** The Python of the experiment, always in sight, in the colours of the place where the panel stands. */

import { useEffect, useRef, useState } from 'react';
import type { Bench, Form, State } from '../bench';

/** Draws Python, coloured, into an element, in the way of the place where the panel stands. */
export type Draw = (host: HTMLElement) => { show(code: string): void; dispose(): void };

/** What can be done with code where the panel stands; null for what cannot be done there. */
export interface Beside {
  insert: ((code: string) => void) | null;
  /** Write a file beside the notebook; gives its path. */
  save: ((code: string, kind: 'script' | 'notebook') => Promise<string>) | null;
}

const FORMS: [Form, string, string][] = [
  ['with', 'with', 'plain Python, in a with block'],
  ['cell', '%%trace', 'a cell magic: the body is traced'],
  ['script', 'script', 'with imports, the model and seeds']
];

export function Code({ bench, state, draw, beside }: { bench: Bench; state: State; draw: Draw; beside: Beside }) {
  const { code, form, verified } = state;
  const [said, setSaid] = useState('');

  useEffect(() => {
    if (!said) {
      return;
    }
    const timer = window.setTimeout(() => setSaid(''), 4000);
    return () => window.clearTimeout(timer);
  }, [said]);

  const save = async (kind: 'script' | 'notebook') => {
    try {
      const text = await bench.codeAs(kind === 'script' ? 'script' : 'with');
      setSaid(`saved as ${await beside.save?.(text, kind)}`);
    } catch (error) {
      bench.tell(error);
    }
  };
  const verifying = bench.running && state.run?.purpose === 'verify';
  return (
    <section className="wb-section" role="region" aria-label="Code">
      <header>
        <h2>Code</h2>
        <span className="wb-tabs" role="group" aria-label="Form of the code">
          {FORMS.map(([each, title, words]) => (
            <button key={each} aria-pressed={form === each} title={words} onClick={() => bench.write(each)}>
              {title}
            </button>
          ))}
        </span>
      </header>
      <Python code={code} draw={draw} />
      <div className="wb-line wb-links">
        <button disabled={!code} onClick={() => void navigator.clipboard.writeText(code).then(() => setSaid('copied'))}>
          Copy
        </button>
        {beside.insert && (
          <button disabled={!code} onClick={() => beside.insert?.(code)}>
            Insert as cell
          </button>
        )}
        {beside.save && (
          <>
            <button disabled={!code} title="Save as a Python script beside the notebook" onClick={() => void save('script')}>
              Save .py
            </button>
            <button disabled={!code} title="Save as a notebook beside this one" onClick={() => void save('notebook')}>
              .ipynb
            </button>
          </>
        )}
        <button
          disabled={!code || bench.running || bench.blocked !== null || state.remote}
          title={
            state.remote
              ? 'Verify runs the text in this kernel: choose Local for it'
              : bench.blocked ?? 'Run this text in a namespace of its own and compare every saved tensor with the cards’ run'
          }
          onClick={() => void bench.verify()}
        >
          Verify
        </button>
        <span className="wb-good" aria-live="polite">
          {said}
        </span>
      </div>
      {verifying && <p className="wb-quiet">verifying …</p>}
      {verified && !verifying && (
        <p className={verified.of !== code ? 'wb-quiet' : verified.equal ? 'wb-good' : 'wb-fault'} role="note">
          {verified.of !== code ? 'before the last change: ' : ''}
          {verified.equal ? '✓ ' : '✗ '}
          {verified.text}
        </p>
      )}
    </section>
  );
}

export function Python({ code, draw }: { code: string; draw: Draw }) {
  const host = useRef<HTMLDivElement>(null);
  const drawn = useRef<ReturnType<Draw> | null>(null);
  useEffect(() => {
    if (!host.current) {
      return;
    }
    const made = (drawn.current = draw(host.current));
    return () => {
      drawn.current = null;
      made.dispose();
    };
  }, [draw]);
  useEffect(() => drawn.current?.show(code), [code, draw]);
  return <div className="wb-code" ref={host} />;
}
