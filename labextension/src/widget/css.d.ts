/** A style sheet as text, as esbuild gives it. */
declare module '*.css' {
  const text: string;
  export default text;
}
