/** View: a header and its bytes, drawn by its kind. */

import type { ViewProps } from './asking';
import type { Header } from './frame';
import { Array_ } from './kinds/array';
import { Attention } from './kinds/attention';
import { Gradient } from './kinds/gradient';
import { Logits } from './kinds/logits';
import { Neurons } from './kinds/neurons';
import { Residual } from './kinds/residual';

export function View({ header, ...rest }: ViewProps<Header>) {
  switch (header.kind) {
    case 'residual':
      return <Residual header={header} {...rest} />;
    case 'attention':
      return <Attention header={header} {...rest} />;
    case 'logits':
      return <Logits header={header} {...rest} />;
    case 'mlp':
      return <Neurons header={header} {...rest} />;
    case 'gradient':
      return <Gradient header={header} {...rest} />;
    case 'array':
      return <Array_ header={header} {...rest} />;
  }
}
