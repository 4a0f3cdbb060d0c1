/** The parts of a card's sentence, each edited where it stands; which one a part is, its schema says. */

import { useEffect, useRef, useState } from 'react';
import { parseList, showList } from '../form';
import type { Field } from '../form';
import type { Tensor } from '../generated/protocol';

/** What parts are drawn from, beside their own value. */
export interface Around {
  tokens: string[];
  heads: number | null;
  prompts: number;
  tensors: Tensor[];
}

interface Props {
  field: Field;
  value: unknown;
  around: Around;
  change(value: unknown): void;
}

/** Widgets that say themselves what they are. */
const SILENT = new Set(['code', 'tokens', 'neurons', 'heads']);

/** One part: its words, then its value. */
export function Part({ field, value, around, change }: Props) {
  const label = capital(field.title);
  return (
    <span className={`wb-part${field.widget === 'code' ? ' wb-part-wide' : ''}`} title={field.description}>
      {!SILENT.has(field.widget) && <span className="wb-word">{field.title}</span>}
      <Value field={field} value={value} around={around} change={change} label={label} />
    </span>
  );
}

function Value({ field, value, around, change, label }: Props & { label: string }) {
  const text = value === null || value === undefined ? '' : String(value);
  const empty = (typed: string) => (typed === '' && field.nullable ? null : typed);
  switch (field.widget) {
    case 'choice':
      return <Choice label={label === 'To' ? 'Mode' : label} value={text} choices={field.choices} change={change} />;
    case 'number':
    case 'seed':
      return <NumberInput label={label} field={field} value={value as number | null} change={change} />;
    case 'switch':
      return <input type="checkbox" aria-label={label} checked={!!value} onChange={event => change(event.target.checked)} />;
    case 'tokens':
    case 'neurons':
      return (
        <ListInput label={label} value={value as number[] | null} tokens={field.widget === 'tokens' ? around.tokens : []} change={change} />
      );
    case 'heads':
      return <Heads value={value as number[] | null} count={around.heads} label={label} change={change} />;
    case 'prompt':
      return (
        <Choice
          label={label}
          value={text}
          choices={[
            { value: '', words: 'every prompt' },
            ...Array.from({ length: around.prompts }, (_, index) => ({ value: `${index}`, words: `prompt ${index + 1}` }))
          ]}
          change={chosen => change(chosen === '' ? null : Number(chosen))}
        />
      );
    case 'number or tensor':
      return (
        <TextInput
          label={label}
          value={text}
          placeholder="0 or a tensor’s name"
          offers={around.tensors.map(tensor => tensor.name)}
          change={typed => change(typed !== '' && Number.isFinite(Number(typed)) ? Number(typed) : typed)}
        />
      );
    case 'tensor':
      return (
        <TextInput
          label={label}
          value={text}
          placeholder="none"
          offers={around.tensors.map(tensor => tensor.name)}
          change={typed => change(empty(typed))}
        />
      );
    case 'code':
      return <CodeInput label={label} value={text} change={change} />;
    default:
      return (
        <TextInput
          label={label}
          value={text}
          placeholder={field.placeholder || (field.widget === 'text' ? '…' : '')}
          wide={field.widget === 'text'}
          change={typed => change(empty(typed))}
        />
      );
  }
}

export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

interface ChoiceProps {
  label: string;
  value: string;
  choices: { value: string; words: string }[];
  change(value: string): void;
}

/** As wide as the words that are chosen, not as the longest. */
export function Choice({ label, value, choices, change }: ChoiceProps) {
  const words = choices.find(each => each.value === value)?.words ?? value;
  return (
    <select
      className="wb-inline wb-choice"
      aria-label={label}
      value={value}
      style={{ width: `${words.length + 2}ch` }}
      onChange={event => change(event.target.value)}
    >
      {choices.map(each => (
        <option key={each.value} value={each.value}>
          {each.words}
        </option>
      ))}
    </select>
  );
}

interface TextProps {
  label: string;
  value: string;
  placeholder?: string;
  offers?: string[];
  wide?: boolean;
  change(value: string): void;
}

/** A line of text, as wide as what is in it. */
export function TextInput({ label, value, placeholder = '', offers, wide, change }: TextProps) {
  const list = useRef(`wb-offers-${Math.random().toString(36).slice(2)}`);
  const width = Math.max(5, Math.min(32, (value || placeholder).length + 2));
  return (
    <>
      <input
        className="wb-inline"
        aria-label={label}
        spellCheck={false}
        value={value}
        placeholder={placeholder}
        title={value || undefined}
        list={offers?.length ? list.current : undefined}
        style={{ width: `${wide ? Math.max(12, width) : width}ch` }}
        onChange={event => change(event.target.value)}
      />
      {offers && offers.length > 0 && (
        <datalist id={list.current}>
          {offers.map(offer => (
            <option key={offer} value={offer} />
          ))}
        </datalist>
      )}
    </>
  );
}

/** Text that is given on when it can be read; until then it stays as it is typed. */
function useDraft<T>(value: T, show: (value: T) => string, parse: (text: string) => T | undefined, change: (value: T) => void) {
  const [draft, setDraft] = useState<string | null>(null);
  const text = draft ?? show(value);
  return {
    text,
    wrong: draft !== null && parse(draft) === undefined,
    type: (typed: string) => {
      setDraft(typed);
      const read = parse(typed);
      if (read !== undefined) {
        change(read);
      }
    },
    settle: () => setDraft(null)
  };
}

interface NumberProps {
  label: string;
  field: Pick<Field, 'step' | 'minimum' | 'unit' | 'widget' | 'nullable'>;
  value: number | null;
  change(value: number | null): void;
}

export function NumberInput({ label, field, value, change }: NumberProps) {
  const draft = useDraft<number | null>(
    value,
    each => (each === null ? '' : `${each}`),
    text => {
      if (text.trim() === '') {
        return field.nullable ? null : undefined;
      }
      const read = Number(text.replace('−', '-').replace(',', '.'));
      const whole = field.widget !== 'seed' || Number.isInteger(read);
      return Number.isFinite(read) && whole && read >= (field.minimum ?? -Infinity) ? read : undefined;
    },
    change
  );
  const step = field.step ?? 1;
  return (
    <>
      {field.unit && <span aria-hidden>{field.unit}</span>}
      <input
        className="wb-inline"
        aria-label={label}
        aria-invalid={draft.wrong}
        inputMode="decimal"
        value={draft.text}
        placeholder={field.nullable ? 'any' : ''}
        style={{ width: `${Math.max(3, draft.text.length + 1)}ch` }}
        onChange={event => draft.type(event.target.value)}
        onBlur={draft.settle}
        onKeyDown={event => {
          const by = event.key === 'ArrowUp' ? step : event.key === 'ArrowDown' ? -step : 0;
          if (by) {
            event.preventDefault();
            draft.settle();
            const next = Number(((value ?? 0) + by).toPrecision(12));
            change(Math.max(field.minimum ?? -Infinity, next));
          }
        }}
      />
    </>
  );
}

interface ListProps {
  label: string;
  value: number[] | null;
  tokens: string[];
  change(value: number[] | null): void;
}

/** Positions, or neurons: typed as `0–3, −1`, with the tokens that they are beside them. */
function ListInput({ label, value, tokens, change }: ListProps) {
  const draft = useDraft<number[] | null>(value, showList, parseList, change);
  const noun = label.toLowerCase();
  const none = noun.startsWith('its ') ? `${noun}: the same` : `all ${noun}`;
  const named = (value ?? []).slice(0, 4).map(position => tokens.at(position)?.trim() || '');
  const words = named.filter(Boolean).join(' ');
  const one = value?.length === 1 && noun.endsWith('s') ? noun.slice(0, -1) : noun;
  return (
    <>
      {draft.text !== '' && <span className="wb-word">{one}</span>}
      <input
        className="wb-inline"
        aria-label={label}
        aria-invalid={draft.wrong}
        spellCheck={false}
        value={draft.text}
        placeholder={none}
        style={{ width: `${draft.text ? Math.max(3, draft.text.length + 1) : none.length + 1}ch` }}
        onChange={event => draft.type(event.target.value)}
        onBlur={draft.settle}
      />
      {words && <span className="wb-word">({words}{(value?.length ?? 0) > 4 ? ' …' : ''})</span>}
    </>
  );
}

const CHIPS = 40;

/** A chip a head; where there are too many to look through, or their number is not known, a list that is typed. */
function Heads({ value, count, label, change }: { value: number[] | null; count: number | null; label: string; change(value: number[] | null): void }) {
  if (count === null || count > CHIPS) {
    return <ListInput label={label} value={value} tokens={[]} change={change} />;
  }
  const chosen = new Set((value ?? []).map(each => (each < 0 ? count + each : each)));
  return (
    <>
      <span className="wb-word">heads</span>
      <span className="wb-chips" role="group" aria-label="Heads">
        {Array.from({ length: count }, (_, head) => (
          <button
            key={head}
            className="wb-chip"
            aria-pressed={chosen.has(head)}
            aria-label={`head ${head}`}
            onClick={event => {
              event.stopPropagation();
              const next = new Set(chosen);
              if (!next.delete(head)) {
                next.add(head);
              }
              change(next.size ? [...next].sort((a, b) => a - b) : null);
            }}
          >
            {head}
          </button>
        ))}
      </span>
    </>
  );
}

/** Python, several lines, as high as it needs. */
function CodeInput({ label, value, change }: { label: string; value: string; change(value: string): void }) {
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const here = area.current;
    if (here) {
      here.style.height = '0';
      here.style.height = `${Math.max(40, here.scrollHeight + 2)}px`;
    }
  }, [value]);
  return (
    <textarea
      className="wb-field wb-python"
      aria-label={label}
      ref={area}
      spellCheck={false}
      placeholder="x = model.transformer.h[0].output.save()"
      value={value}
      onChange={event => change(event.target.value)}
    />
  );
}
