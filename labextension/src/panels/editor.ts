/** Python in JupyterLab's own editor, to be read: the notebook's colours and font. */

import { CodeEditor } from '@jupyterlab/codeeditor';
import type { Draw } from '../views/code';

export function drawing(editors: CodeEditor.Factory): Draw {
  return host => {
    const model = new CodeEditor.Model({ mimeType: 'text/x-python' });
    const editor = editors({ host, model, config: { readOnly: true, lineNumbers: false, lineWrap: false } });
    editor.host.querySelector('.cm-content')?.setAttribute('aria-label', 'Python of the experiment');
    return {
      show: code => model.sharedModel.setSource(code),
      dispose: () => {
        editor.dispose();
        model.dispose();
      }
    };
  };
}
