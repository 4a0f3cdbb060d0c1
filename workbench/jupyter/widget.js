// Asks the kernel for the program once in a page, and hands the widget to it.
const program = model =>
  (globalThis.workbenchProgram ??= new Promise(resolve => {
    const heard = message => {
      if (message.program) {
        model.off('msg:custom', heard);
        const address = URL.createObjectURL(new Blob([message.program], { type: 'text/javascript' }));
        resolve(import(address));
      }
    };
    model.on('msg:custom', heard);
    model.send({ wants: 'program' });
  }));

export default {
  async render({ model, el }) {
    const { workbench } = await program(model);
    return workbench.render({ model, el });
  }
};
