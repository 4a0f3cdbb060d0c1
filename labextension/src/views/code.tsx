/** The Python of the experiment, always in sight, in the notebook's own colours. */

import { useEffect, useRef, useState } from 'react';

/** Draws Python, coloured, into an element, in the way of the place where the panel stands. */
export type Draw = (host: HTMLElement) => { show(code: string): void; dispose(): void };

interface Props {
  code: string;
  draw: Draw;
  insert: ((code: string) => void) | null;
}

export function Code({ code, draw, insert }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const drawn = useRef<ReturnType<Draw> | null>(null);
  const [copied, setCopied] = useState(false);

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
  useEffect(() => {
    if (!copied) {
      return;
    }
    const timer = window.setTimeout(() => setCopied(false), 1500);
    return () => window.clearTimeout(timer);
  }, [copied]);

  return (
    <section className="wb-section" role="region" aria-label="Code">
      <header>
        <h2>Code</h2>
        <span className="wb-links">
          <button
            disabled={!code}
            onClick={() => void navigator.clipboard.writeText(code).then(() => setCopied(true))}
          >
            Copy
          </button>
          {insert && (
            <button disabled={!code} onClick={() => insert(code)}>
              Insert as cell
            </button>
          )}
          <span className="wb-good" aria-live="polite">
            {copied ? 'copied' : ''}
          </span>
        </span>
      </header>
      <div className="wb-code" ref={host} />
    </section>
  );
}
