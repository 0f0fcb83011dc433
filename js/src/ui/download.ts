import { h } from "./dom";

/** Hand a file to the user through a data: link in base64, the one way that works in every front end. */
export function download(name: string, url: string): void {
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
}

/** A text file's data: URL. VS Code opens none but those in base64. */
export function textUrl(type: string, text: string): string {
  // Bytes of UTF-8: a token's string holds more than Latin letters.
  const bytes = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte));
  return `data:${type};base64,${btoa(bytes.join(""))}`;
}

export const svgUrl = (svg: string) => textUrl("image/svg+xml", svg);

/** An SVG document as a PNG's data: URL, two pixels to a CSS pixel. */
export async function rasterise(svg: string): Promise<string> {
  const image = new Image();
  image.src = svgUrl(svg);
  await image.decode();
  const canvas: HTMLCanvasElement = h("canvas", { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL();
}
