/** Builds the widget and the program of exported notebooks: each one file, with Preact in React's place. */

import { build } from 'esbuild';

const common = {
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  loader: { '.css': 'text' },
  alias: {
    'react/jsx-runtime': 'preact/jsx-runtime',
    'react-dom/client': 'preact/compat/client',
    'react-dom': 'preact/compat',
    react: 'preact/compat'
  },
  legalComments: 'none',
  logLevel: 'warning'
};

await build({
  ...common,
  entryPoints: { widget: 'labextension/src/widget/index.tsx', page: 'labextension/src/widget/page.tsx' },
  outdir: 'workbench/views/static'
});
