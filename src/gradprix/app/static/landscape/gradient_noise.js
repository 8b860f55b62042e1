/* Gradient noise: the same numbers as gradprix/explain/gradient_noise.py, from the generator Philox4x32-10. */

const ROUNDS = 10;

/** Return the high half of the product of two unsigned 32-bit integers. */
function multiplyHigh(a, b) {
  const [low, high, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = high * bLow + ((low * bLow) >>> 16);
  return (high * bHigh + (middle >>> 16) + ((low * bHigh + (middle & 0xffff)) >>> 16)) >>> 0;
}

/** Return four random 32-bit integers for a counter of four and a key of two 32-bit integers. */
export function philox([a, b, c, d], [k, m]) {
  for (let round = 0; round < ROUNDS; round++) {
    const first = [multiplyHigh(0xd2511f53, a), Math.imul(0xd2511f53, a) >>> 0];
    const second = [multiplyHigh(0xcd9e8d57, c), Math.imul(0xcd9e8d57, c) >>> 0];
    [a, b, c, d] = [(second[0] ^ b ^ k) >>> 0, second[1], (first[0] ^ d ^ m) >>> 0, first[1]];
    [k, m] = [(k + 0x9e3779b9) >>> 0, (m + 0xbb67ae85) >>> 0];
  }
  return [a, b, c, d];
}

/** Return two independent standard normal numbers for a seed and the number of a step. */
export function drawNoise(seed, t) {
  const [a, b, c, d] = philox([t, 0, 0, 0], [seed, 0]);
  const radius = Math.sqrt(-2 * Math.log(((a >>> 5) * 67108864 + (b >>> 6) + 1) / 9007199254740992));
  const angle = 2 * Math.PI * (((c >>> 5) * 67108864 + (d >>> 6)) / 9007199254740992);
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}
