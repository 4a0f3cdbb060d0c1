/** Frame: what every view has about it: its title, a note, as what else it can be seen, and how to take it away. */

import { useEffect, useId, useRef, useState } from 'react';
import type { ReactNode } from 'react';
import type { ViewReply } from '../generated/protocol';
import { figure, pngOf } from './figure';
import type { Numbers } from './figure';
import { csvOf } from './table';

export type Header = ViewReply['view'];
export type Kind = Header['kind'];

export const TITLES: Record<Kind, string> = {
  residual: 'residual stream',
  attention: 'attention',
  logits: 'next tokens',
  mlp: 'neurons',
  gradient: 'gradient',
  array: 'array'
};

interface Props {
  header: Header;
  buffers: DataView[];
  quiet?: string;
  /** The picture that is taken away as PNG or SVG. */
  picture: Numbers | null;
  as?(kind: Kind): void;
  tools?: ReactNode;
  children: ReactNode;
}

export function Frame({ header, buffers, quiet, picture, as, tools, children }: Props) {
  const id = useId();
  return (
    <section className={`wb-view wb-view-${header.kind}`} role="region" aria-labelledby={id}>
      <header>
        <h2 id={id}>{header.title}</h2>
        <span className="wb-quiet" title={quiet}>
          {quiet}
        </span>
        <span className="wb-tools">
          {header.kinds.length > 1 && as && (
            <select
              className="wb-inline"
              aria-label={`View ${header.title} as`}
              value={header.kind}
              onChange={event => as(event.target.value as Kind)}
            >
              {header.kinds.map(kind => (
                <option key={kind} value={kind}>
                  {TITLES[kind]}
                </option>
              ))}
            </select>
          )}
          {tools}
          <Take header={header} buffers={buffers} picture={picture} />
        </span>
      </header>
      {header.note && <p className="wb-note">{header.note}</p>}
      {children}
    </section>
  );
}

/** Code to the clipboard; picture and numbers as files. */
function Take({ header, buffers, picture }: Pick<Props, 'header' | 'buffers' | 'picture'>) {
  const [open, setOpen] = useState(false);
  const [said, setSaid] = useState('');
  const menu = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    if (!open) {
      return;
    }
    const away = (event: Event) => {
      if (!menu.current?.contains(event.target as Node)) {
        setOpen(false);
      }
    };
    document.addEventListener('pointerdown', away);
    return () => document.removeEventListener('pointerdown', away);
  }, [open]);
  useEffect(() => {
    const timer = window.setTimeout(() => setSaid(''), 1500);
    return () => window.clearTimeout(timer);
  }, [said]);
  const dark = () => menu.current;
  const items: [string, () => void | Promise<void>, boolean][] = [
    ['Copy code', () => navigator.clipboard.writeText(header.code).then(() => setSaid('copied')), header.code !== ''],
    ['SVG', () => save(`${name(header)}.svg`, 'image/svg+xml', figure(picture!, header.title, dark())), picture !== null],
    ['PNG', async () => save(`${name(header)}.png`, 'image/png', await pngOf(picture!, header.title, dark())), picture !== null],
    ['CSV', () => save(`${name(header)}.csv`, 'text/csv', csvOf(header, buffers)), true]
  ];
  return (
    <span
      className="wb-take"
      ref={menu}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          setOpen(false);
          menu.current?.querySelector('button')?.focus();
        }
      }}
    >
      <button className="wb-icon" aria-label={`Take ${header.title} away`} aria-expanded={open} title="Code, picture, numbers" onClick={() => setOpen(!open)}>
        ⋯
      </button>
      {open && (
        <span className="wb-menu">
          {items
            .filter(([, , there]) => there)
            .map(([title, act]) => (
              <button
                key={title}
                onClick={() => {
                  setOpen(false);
                  void act();
                }}
              >
                {title}
              </button>
            ))}
        </span>
      )}
      <span className="wb-good" aria-live="polite">
        {said}
      </span>
    </span>
  );
}

const name = (header: Header): string => header.title.replace(/\W+/g, '-').replace(/^-|-$/g, '') || header.kind;

function save(file: string, type: string, content: string | Blob): void {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = Object.assign(document.createElement('a'), { href: address, download: file });
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
