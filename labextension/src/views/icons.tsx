/** The few signs that are drawn, since not every font has them; each stands in a button that says in words what it does. */

const PATHS = {
  capsule: 'M5 3h6v10H5zM5 6.5h6M8 9v2',
  close: 'M4 4l8 8M12 4l-8 8',
  copy: 'M6 6h7v7H6zM3 10V3h7',
  rename: 'M3 13l1-3 7-7 2 2-7 7zM9.5 4.5l2 2',
  back: 'M6 3L3 6l3 3M3 6h6a4 4 0 010 8H6'
};

export function Icon({ sign }: { sign: keyof typeof PATHS }) {
  return (
    <svg className="wb-sign" viewBox="0 0 16 16" width="14" height="14" aria-hidden focusable="false">
      <path d={PATHS[sign]} fill="none" stroke="currentColor" strokeWidth="1.3" />
    </svg>
  );
}
