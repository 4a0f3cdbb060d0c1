/** The program that an exported notebook carries once: it draws the views that stand in the page. */

import { workbench } from './index';

declare global {
  var workbench: { draw(): void } | undefined;
}

if (!globalThis.workbench) {
  globalThis.workbench = workbench;
  if (document.readyState === 'loading') {
    document.addEventListener('DOMContentLoaded', () => workbench.draw());
  }
}
globalThis.workbench.draw();
