/** Frame: what every view has about it: its title, a note, as what else it can be seen, and how to take it away. */

import { useEffect, useRef, useState } from 'react';
import type { ReactNode } from 'react';
import type { ViewReply } from '../generated/protocol';
import type { Change } from './asking';
import { figure, pngOf } from './figure';
import type { Picture } from './figure';
import { csvOf, scoresOf } from './table';

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
  picture: Picture | null;
  change?(change: Change): void;
  tools?: ReactNode;
  children: ReactNode;
}

/** Not by useId, which begins anew in each of a page's outputs; and the panel and a widget are two programs in one page. */
const OURS = `wb-${Math.random().toString(36).slice(2, 8)}`;
let frames = 0;

export function Frame({ header, buffers, quiet, picture, change, tools, children }: Props) {
  const [id] = useState(() => `${OURS}-${++frames}`);
  return (
    <section className={`wb-view wb-view-${header.kind}`} role="group" aria-labelledby={id}>
      <header>
        <h2 id={id}>{header.title}</h2>
        <span className="wb-quiet" title={quiet}>
          {quiet}
        </span>
        <span className="wb-tools">
          {header.kinds.length > 1 && change && (
            <select
              className="wb-inline"
              aria-label={`View ${header.title} as`}
              value={header.kind}
              onChange={event => change({ kind: event.target.value as Kind })}
            >
              {header.kinds.map(kind => (
                <option key={kind} value={kind}>
                  {TITLES[kind]}
                </option>
              ))}
            </select>
          )}
          {header.rows > 1 && change && (
            <Picker name="Batch" count={header.rows} value={header.batch} pick={batch => change({ batch })} />
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

export function Picker({ name, count, value, pick }: { name: string; count: number; value: number; pick(value: number): void }) {
  return (
    <label className="wb-picker">
      {name.toLowerCase()}{' '}
      <select className="wb-inline" aria-label={name} value={value} onChange={event => pick(Number(event.target.value))}>
        {Array.from({ length: count }, (_, each) => (
          <option key={each} value={each}>
            {each}
          </option>
        ))}
      </select>
    </label>
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
      if (menu.current && !event.composedPath().includes(menu.current)) {
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
    ['CSV', async () => save(`${name(header)}.csv`, 'text/csv', await csvOf(header, buffers)), true],
    ['CSV of scores', () => save(`${name(header)}-scores.csv`, 'text/csv', scoresOf(header)), header.kind === 'attention']
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
