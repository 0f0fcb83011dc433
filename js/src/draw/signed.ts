/** A value with its sign in about six columns, as the static pictures write it. */
export function signed(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "not a number";
  const sign = value < 0 ? "−" : value > 0 ? "+" : "";
  const size = Math.abs(value);
  if (size === Number.POSITIVE_INFINITY) return `${sign}∞`;
  if (!size) return "0";
  if (size < 5e-5 || size >= 1e6) {
    // As in Python: an exponent has two digits.
    const [digits, power = ""] = size.toExponential(1).split(/e\+?/);
    return `${sign}${digits}e${power.replace(/^(-?)(\d)$/, "$10$2").replace("-", "−")}`;
  }
  if (size < 1e-3) return `${sign}${size.toFixed(4)}`;
  if (size < 100) return `${sign}${size.toFixed(3)}`;
  return (
    sign +
    size.toLocaleString("en-US", {
      maximumFractionDigits: size < 1e4 ? 1 : 0,
      minimumFractionDigits: size < 1e4 ? 1 : 0,
    })
  );
}

/** A weight as the static pictures write it. */
export const weight = (value: number | null | undefined): string => signed(value).replace(/^\+/, "");
