/** Numbers as text. */

const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** Return a power of ten as text: `0.01` to `100` as a number, others as `10³`. */
export function formatPower(exponent) {
  if (exponent >= -2 && exponent <= 3) return String(Number((10 ** exponent).toPrecision(1)));
  return "10" + [...String(exponent)].map((digit) => SUPERSCRIPTS[digit]).join("");
}

/** Return a number with at most so many significant digits, with a typographic minus: `−0.0123`, `4.5e−48`. */
export function formatNumber(value, digits = 3) {
  if (value === null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const short =
    size !== 0 && (size < 1e-3 || size >= 1e6)
      ? value
          .toExponential(digits - 1)
          .replace(/\.?0+e/, "e")
          .replace("e+", "e")
      : String(Number(value.toPrecision(digits)));
  return short.replaceAll("-", "−");
}

/** Return a number as the shortest text that represents it exactly, as in a URL or an input. */
export const formatExact = (value) => String(value).replace("e+", "e");

/** Return a coordinate with four decimals. */
export const formatCoordinate = (value) => String(Number(value.toFixed(4)) + 0).replace("-", "−");

/** Return a number with thousands separators: `2,000`. */
export const formatLimit = (value) =>
  (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6 ? value.toLocaleString("en-US") : formatExact(value)).replace(
    "-",
    "−",
  );

/** Escape a text for HTML and SVG. */
export const escapeText = (text) =>
  String(text).replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);
