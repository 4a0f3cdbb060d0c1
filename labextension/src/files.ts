/** Code as a file beside the notebook: a script, or a notebook with one cell; nothing is ever written over. */

import type { INotebookTracker } from '@jupyterlab/notebook';
import type { Contents } from '@jupyterlab/services';

export function saver(contents: Contents.IManager, notebooks: INotebookTracker) {
  return async (code: string, kind: 'script' | 'notebook'): Promise<string> => {
    const beside = notebooks.currentWidget?.context.path ?? '';
    const folder = beside.includes('/') ? beside.slice(0, beside.lastIndexOf('/') + 1) : '';
    const stem = beside.slice(folder.length).replace(/\.ipynb$/, '') || 'experiment';
    const taken = new Set(((await contents.get(folder)).content as Contents.IModel[]).map(each => each.name));
    const ending = kind === 'script' ? '.py' : '.ipynb';
    let name = `${stem}-experiment${ending}`;
    for (let number = 2; taken.has(name); number += 1) {
      name = `${stem}-experiment-${number}${ending}`;
    }
    if (kind === 'script') {
      await contents.save(folder + name, { type: 'file', format: 'text', content: code.endsWith('\n') ? code : `${code}\n` });
    } else {
      const metadata = notebooks.currentWidget?.content.model?.sharedModel.metadata ?? {};
      const source = code.startsWith('import workbench') ? code : `import workbench as wb\n\n${code}`;
      const cell = { cell_type: 'code', execution_count: null, id: 'experiment', metadata: {}, outputs: [], source };
      const content = { nbformat: 4, nbformat_minor: 5, metadata, cells: [cell] };
      await contents.save(folder + name, { type: 'notebook', format: 'json', content });
    }
    return folder + name;
  };
}
