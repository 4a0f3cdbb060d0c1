/** Log lines as they come, each with the site that it is from. */

import { useEffect, useRef } from 'react';
import type { LogLine } from '../generated/protocol';

const SHOWN = 500;

export function Logs({ logs }: { logs: LogLine[] }) {
  const end = useRef<HTMLOListElement>(null);
  const lines = logs.slice(-SHOWN);
  useEffect(() => {
    const list = end.current;
    if (list) {
      list.scrollTop = list.scrollHeight;
    }
  }, [logs]);
  return (
    <section role="region" aria-label="Logs" className="wb-logs">
      <header>
        <h2>Logs</h2>
        <span className="wb-quiet">
          {logs.length > SHOWN ? `the last ${SHOWN} of ${logs.length} lines` : lines.length ? count(lines.length) : ''}
        </span>
      </header>
      {lines.length ? (
        <ol ref={end} tabIndex={0} aria-label="Log lines">
          {lines.map((line, index) => (
            <li key={index}>
              {line.site && !says(line.text, line.site) && (
                <span className="wb-site" title={line.site}>
                  <bdi>{line.site}</bdi>
                </span>
              )}
              <span>{line.text}</span>
            </li>
          ))}
        </ol>
      ) : (
        <p className="wb-quiet">Nothing was logged.</p>
      )}
    </section>
  );
}

/** Whether the line begins with its site already, as `lm_head.output` or `lm_head output`. */
const says = (text: string, site: string): boolean =>
  text.startsWith(site) || text.startsWith(site.replace(/\.(output|input)$/, ' $1'));

const count = (lines: number): string => (lines === 1 ? '1 line' : `${lines} lines`);
