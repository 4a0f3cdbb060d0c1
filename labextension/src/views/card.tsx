/** A card is a sentence: where, which part of it, what is done there; its fault or its receipt stands below. */

import { useState } from 'react';
import type { KeyboardEvent } from 'react';
import type { Bench, State } from '../bench';
import { retarget, targetOf } from '../experiment';
import type { Card } from '../experiment';
import { partsOf, targetFields } from '../form';
import type { Fault, KindsReply, Receipt, Target } from '../generated/protocol';
import { shapeOf } from '../tree';
import { Choice, Part, TextInput } from './fields';
import type { Around } from './fields';
import { Icon } from './icons';

interface Props {
  card: Card;
  kinds: KindsReply;
  around: Around;
  state: State;
  faults: Fault[];
  receipt: Receipt | undefined;
  selected: boolean;
  marked: boolean;
  bench: Bench;
  drag: { start(): void; over(): void; end(): void };
}

const MORE = ['heads', 'neurons', 'index', 'steps', 'prompt'] as const;
type More = (typeof MORE)[number] | 'note';

export function CardView({ card, kinds, around, state, faults, receipt, selected, marked, bench, drag }: Props) {
  const [grip, setGrip] = useState(false);
  const [opened, setOpened] = useState<More[]>([]);
  const info = kinds.kinds.find(each => each.kind === card.kind);
  if (!info) {
    return null;
  }
  const at = targetOf(card);
  const errors = faults.filter(fault => fault.level !== 'warning');
  const warns = faults.length > errors.length || !!receipt?.warning;
  const mood = errors.length ? ' wb-faulty' : warns ? ' wb-warns' : '';
  const title = at ? at.path || 'model' : firstLine(card);
  const words = targetFields(kinds);
  const noting = opened.includes('note');
  const used = (key: More) => opened.includes(key) || (key === 'note' ? card.note !== '' : at?.[key] !== null);
  // What is not used yet is offered on the selected card.
  const offered = !selected
    ? []
    : ([...(at ? MORE : []), 'note'] as More[]).filter(key => !used(key) && (key === 'note' || (at && fits(key, at, state))));
  const change = (field: string, value: unknown) =>
    bench.change(card.id, each => ({ ...each, [field]: value }) as Card, field);
  const onKeyDown = (event: KeyboardEvent) => {
    const own = event.target === event.currentTarget;
    const by = event.key === 'ArrowUp' ? -1 : event.key === 'ArrowDown' ? 1 : 0;
    if (by && event.altKey) {
      bench.move(card.id, { by });
      const here = event.currentTarget as HTMLElement;
      window.setTimeout(() => here.focus(), 0);
    } else if (by && own) {
      const next = by < 0 ? event.currentTarget.previousElementSibling : event.currentTarget.nextElementSibling;
      (next as HTMLElement | null)?.focus();
    } else if (own && event.key === 'Delete') {
      bench.remove(card.id);
    } else if (own && (event.key === 'd' || event.key === 'D') && (event.ctrlKey || event.metaKey)) {
      bench.duplicate(card.id);
    } else if (own && event.key === ' ') {
      bench.change(card.id, each => ({ ...each, enabled: !each.enabled }));
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <li
      className={`wb-card${selected ? ' wb-active' : ''}${mood}${card.enabled ? '' : ' wb-off'}${marked ? ' wb-marked' : ''}`}
      tabIndex={0}
      aria-label={`${info.title} ${title}`}
      aria-keyshortcuts="Alt+ArrowUp Alt+ArrowDown Delete"
      draggable={grip}
      onDragStart={event => {
        event.dataTransfer.effectAllowed = 'move';
        event.dataTransfer.setData('text/plain', title);
        drag.start();
      }}
      onDragEnter={drag.over}
      onDragOver={event => {
        event.preventDefault();
        drag.over();
      }}
      onDragEnd={() => {
        setGrip(false);
        drag.end();
      }}
      onFocus={() => !selected && bench.select(card.id)}
      onClick={() => bench.select(card.id)}
      onKeyDown={onKeyDown}
    >
      <div className="wb-card-head">
        <span
          className={`wb-badge wb-badge-${card.kind} wb-grip`}
          title="Drag to another place; Alt+↑ and Alt+↓ do the same"
          aria-hidden
          onPointerDown={() => setGrip(true)}
          onPointerUp={() => setGrip(false)}
        >
          {info.symbol}
        </span>
        <b>{info.title}</b>
        <code title={title}>
          <bdi>{title}</bdi>
        </code>
        <span className="wb-card-tools">
          <button
            className="wb-icon"
            aria-label="Duplicate"
            title="Duplicate"
            onClick={event => {
              event.stopPropagation();
              bench.duplicate(card.id);
            }}
          >
            <Icon sign="copy" />
          </button>
          <button
            className="wb-icon"
            aria-label="Remove"
            title="Remove (Delete)"
            onClick={event => {
              event.stopPropagation();
              bench.remove(card.id);
            }}
          >
            <Icon sign="close" />
          </button>
        </span>
        <button
          className="wb-switch"
          role="switch"
          aria-label="Enabled"
          aria-checked={card.enabled}
          onClick={event => {
            event.stopPropagation();
            bench.change(card.id, each => ({ ...each, enabled: !each.enabled }));
          }}
        />
      </div>
      <div className="wb-card-body">
        {at && <Where card={card} at={at} kinds={kinds} around={around} state={state} opened={opened} bench={bench} />}
        {partsOf(info, card).map(field => (
          <Part
            key={field.key}
            field={field}
            value={(card as unknown as Record<string, unknown>)[field.key]}
            around={around}
            change={value => change(field.key, value)}
          />
        ))}
        {card.kind === 'save' && at && <ShapeWord state={state} at={at} />}
        {(noting || card.note) && (
          <span className="wb-part">
            <span className="wb-word">#</span>
            <TextInput label="Note" value={card.note} placeholder="in words" wide change={note => change('note', note)} />
          </span>
        )}
        {offered.length > 0 && (
          <span className="wb-part wb-offers">
            {offered.map(key => (
              <button key={key} title={`Add: ${key === 'note' ? 'a comment' : words[key].description}`} onClick={() => setOpened([...opened, key])}>
                +{key === 'note' ? 'note' : words[key].title.toLowerCase()}
              </button>
            ))}
          </span>
        )}
      </div>
      {faults.map(fault => (
        <div key={fault.message} className={fault.level === 'warning' ? 'wb-amber' : 'wb-fault'}>
          {fault.message}
        </div>
      ))}
      {!faults.length && receipt && card.enabled && (
        <div className={receipt.warning ? 'wb-amber' : 'wb-good'}>{receipt.warning ?? receipt.text}</div>
      )}
    </li>
  );
}

interface WhereProps {
  card: Card;
  at: Target;
  kinds: KindsReply;
  around: Around;
  state: State;
  opened: More[];
  bench: Bench;
}

/** Side, tokens, and what narrows it further. */
function Where({ card, at, kinds, around, state, opened, bench }: WhereProps) {
  const fields = targetFields(kinds);
  const set = (part: Partial<Target>, field: string) => bench.change(card.id, each => retarget(each, part), `at ${field}`);
  return (
    <>
      <span className="wb-part">
        <Choice
          label="Side"
          value={at.port}
          choices={[
            { value: 'output', words: 'output' },
            { value: 'input', words: 'input' }
          ]}
          change={port => set({ port: port as Target['port'] }, '')}
        />
      </span>
      {at.index === null && (
        <Part
          field={fields['positions']}
          value={at.positions}
          around={{ ...around, tokens: state.tokens?.prompts[at.prompt ?? 0]?.tokens ?? [] }}
          change={positions => set({ positions: positions as number[] | null }, 'positions')}
        />
      )}
      {MORE.filter(key => at[key] !== null || opened.includes(key)).map(key => (
        <Part
          key={key}
          field={fields[key]}
          value={at[key]}
          around={around}
          change={value => set({ [key]: value, ...(key === 'index' && value ? { positions: null } : {}) }, key === 'prompt' ? '' : key)}
        />
      ))}
    </>
  );
}

/** Which further parts make sense here. */
function fits(key: More, at: Target, state: State): boolean {
  const row = state.tree?.find(at.path) ?? -1;
  const standard = row >= 0 ? (state.tree?.standard(row) ?? '') : '';
  switch (key) {
    case 'heads':
      return /\.attn$/.test(standard);
    case 'neurons':
      return /\.mlp$/.test(standard);
    case 'steps':
      return state.experiment.generate > 0;
    case 'prompt':
      return state.experiment.prompts.length > 1;
    default:
      return true;
  }
}

function ShapeWord({ state, at }: { state: State; at: Target }) {
  const row = state.tree?.find(at.path) ?? -1;
  if (row < 0 || at.positions || at.index) {
    return null;
  }
  const { into, out } = shapeOf(state.shapes, row);
  const text = at.port === 'input' ? into || out : out;
  return text ? <span className="wb-part wb-word">({text.split('×').join(', ')})</span> : null;
}

function firstLine(card: Card): string {
  const text = card.kind === 'code' ? card.code.trim().split('\n')[0] : '';
  return text || 'Python of your own';
}
