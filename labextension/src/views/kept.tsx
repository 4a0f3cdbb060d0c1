/** Kept: views as they stand in a notebook, to be looked at without a kernel; and to be changed, where one answers. */

import { useEffect, useMemo, useRef, useState } from 'react';
import type { ViewParams } from '../generated/protocol';
import type { Request } from './asking';
import type { Header } from './frame';
import { useLive } from './live';
import type { Got } from './live';
import { Selection } from './selection';
import { View } from './view';

/** One view in a notebook: its numbers as base64, and what gives it again, if it is of a run. */
export interface KeptView {
  header: Header;
  buffers: string[];
  params: ViewParams | null;
}

export interface Kept {
  version: number;
  headline: string;
  views: KeptView[];
}

const SOON = 500; // ms after the last change, before the views are packed

interface Props {
  kept: Kept;
  request?: Request;
  /** Told of the views as they are now, when one has changed. */
  keep?(kept: Kept): void;
}

export function KeptViews({ kept, request, keep }: Props) {
  const [selection] = useState(() => new Selection());
  const now = useRef(kept);
  useEffect(() => {
    now.current = kept;
  }, [kept]);
  const later = useRef<number>();
  const changed = useRef(new Map<number, Got>());
  const settled = (at: number) => (got: Got) => {
    changed.current.set(at, got);
    window.clearTimeout(later.current);
    later.current = window.setTimeout(() => {
      const views = now.current.views.map((each, index) => {
        const other = changed.current.get(index);
        return other ? packed(other) : each;
      });
      changed.current.clear();
      now.current = { ...now.current, views };
      keep?.(now.current);
    }, SOON);
  };
  useEffect(() => () => window.clearTimeout(later.current), []);
  return (
    <div className="wb-kept">
      {kept.headline && <p className="wb-headline">{kept.headline}</p>}
      <div className={kept.views.length > 1 ? 'wb-views' : undefined}>
        {kept.views.map((each, at) => (
          <One key={at} view={each} {...{ selection, request }} settled={settled(at)} />
        ))}
      </div>
    </div>
  );
}

interface OneProps {
  view: KeptView;
  selection: Selection;
  request?: Request;
  settled(got: Got): void;
}

function One({ view, selection, request, settled }: OneProps) {
  const given = useMemo(() => unpacked(view), [view]);
  const { params } = view;
  const of = { run: params?.run ?? 0, name: params?.name ?? '', part: params?.part ?? 0 };
  const asks = params ? request : undefined;
  const { got, trouble, change } = useLive(asks, of, params ?? {}, given, settled);
  const shown = got ?? given;
  return (
    <>
      <View
        header={shown.header}
        buffers={shown.buffers}
        selection={selection}
        {...(asks ? { change, request: asks, of } : {})}
      />
      {trouble && <p className="wb-note">{trouble}</p>}
    </>
  );
}

const unpacked = ({ header, buffers, params }: KeptView): Got => ({
  header,
  params,
  buffers: buffers.map(text => {
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let at = 0; at < letters.length; at += 1) {
      bytes[at] = letters.charCodeAt(at);
    }
    return new DataView(bytes.buffer);
  })
});

export const packed = ({ header, buffers, params }: Got): KeptView => ({ header, params, buffers: buffers.map(base64) });

function base64(bytes: DataView): string {
  const all = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let letters = '';
  for (let at = 0; at < all.length; at += 0x8000) {
    letters += String.fromCharCode(...all.subarray(at, at + 0x8000));
  }
  return btoa(letters);
}

/** The views in an output's HTML, where the kernel put them. */
export function keptIn(html: string): Kept | null {
  const found = new DOMParser().parseFromString(html, 'text/html').querySelector(`script[type="${MIME}"]`);
  return found?.textContent ? (JSON.parse(found.textContent) as Kept) : null;
}

/** The same HTML with the views as they are now. */
export function htmlWith(html: string, kept: Kept): string {
  const from = html.indexOf(OPENS) + OPENS.length;
  const to = html.indexOf('</script>', from);
  return html.slice(0, from) + JSON.stringify(kept).replaceAll('</', '<\\/') + html.slice(to);
}

/** The event by which the workbench in a cell says what is to be kept of it. */
export const KEPT = 'workbench:kept';
export const MIME = 'application/vnd.workbench.view+json';
const OPENS = `<script type="${MIME}">`;
