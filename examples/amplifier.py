"""Learn a guitar amplifier's sound: an LSTM, and exact gradients through 30 s of audio at 48 kHz.

The audio is one sequence of 1,440,000 steps. cuDNN, which runs PyTorch's LSTM on a GPU, takes at
most 65,535 steps, so audio is usually cut into pieces, and no gradient crosses the cuts. Here
nothing is cut: each gradient goes back from the last sample to the first, within a memory budget.

The amplifier is simulated, with the parts of a real one: a tone filter, a diode clipper with its
capacitor (a stiff differential equation, solved at each sample) and a coupling capacitor. The
network sees only its input and output (Wright, Damskagg and Valimaki 2019).

    python examples/amplifier.py [--seconds 30] [--updates 300] [--budget 64MB] [--wav out.wav]
"""

from __future__ import annotations

import argparse
import wave

import numpy as np
from numba import njit

import fastbptt as fb

RATE = 48_000  # samples a second
R, C, IS, VT = 2200.0, 1e-8, 2.52e-9, 0.0453  # ohm, farad, ampere, volt: two 1N4148 diodes


@njit
def pluck(samples: int, period: int, noise: np.ndarray) -> np.ndarray:
    """A plucked string (Karplus and Strong 1983): noise in a loop that averages it."""
    string, out = noise[:period].copy(), np.empty(samples)
    for n in range(samples):
        i = n % period
        out[n] = string[i]
        string[i] = 0.498 * (string[i] + string[(i + 1) % period])
    return out


def guitar(seconds: float, seed: int) -> np.ndarray:
    """Return random notes, (T,) float64, from -1 V to 1 V."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(int(seconds * RATE))
    for start in range(0, len(sound), RATE // 4):
        pitch = 82.4 * 2 ** (rng.integers(0, 30) / 12)  # in Hz, from the lowest string up
        note = pluck(min(RATE, len(sound) - start), int(RATE / pitch), rng.uniform(-1, 1, 1000))
        sound[start : start + len(note)] += rng.uniform(0.1, 1.0) * note
    return sound / np.abs(sound).max()


@njit
def clipper(before: float, drive: float) -> float:
    """Return the voltage at two diodes one sample later.

    dv/dt = (drive - v) / RC - 2 Is / C sinh(v / Vt): one implicit step, by Newton's method.
    """
    v, charge, leak = before, 1 / (R * C * RATE), 2 * IS / (C * RATE)
    for _ in range(40):
        f = v - before - charge * (drive - v) + leak * np.sinh(v / VT)
        step = f / (1 + charge + leak / VT * np.cosh(v / VT))
        v -= min(max(step, -0.1), 0.1)
    return v


@njit
def amplifier(sound: np.ndarray) -> np.ndarray:
    """Tone filter, clipper, coupling capacitor: volts in, volts out."""
    out = np.empty_like(sound)
    low = clipped = coupled = 0.0
    for t, u in enumerate(sound):
        low += 0.06 * (u - low)  # a first-order low-pass at about 470 Hz
        clipped = clipper(clipped, 8.0 * (u - 0.7 * low))  # treble boost and gain
        coupled += 0.002 * (clipped - coupled)  # a high-pass at about 15 Hz
        out[t] = clipped - coupled
    return out


def pair(seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the input and output of the amplifier, both (T, 1) float32."""
    sound = guitar(seconds, seed)
    x, y = sound, amplifier(sound)
    return x[:, None].astype(np.float32), y[:, None].astype(np.float32)


def save_wav(path: str, sound: np.ndarray) -> None:
    """Write a 16-bit mono file."""
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound / np.abs(sound).max() * 32_000).astype("<i2").tobytes())


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Train and report; returns the error-to-signal ratio on unheard notes, before and after."""
    parser = argparse.ArgumentParser(description="An LSTM learns an amplifier by exact gradients.")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--budget", default="64MB")
    parser.add_argument("--picture", help="draw the learning curve")
    parser.add_argument("--wav", help="write unheard notes: in, amplified, and by the network")
    args = parser.parse_args(arguments)

    x, y = pair(args.seconds, seed=0)
    unheard_x, unheard_y = pair(min(args.seconds, 5), seed=1)
    layer = fb.LSTM.init(1, args.hidden, rng=2)
    layer.U[:] *= 5  # strings are quiet: 0.15 V on average
    layer.b[args.hidden : 2 * args.hidden] += 1  # the forget gates start nearly open
    network = fb.Network(layer, fb.Readout.init(args.hidden, 1, rng=3))
    full, plan = fb.plan(network, len(x)), fb.plan(network, len(x), memory=args.budget)
    print(f"{args.seconds:g} s of guitar at {RATE:,} Hz: one sequence of {len(x):,} steps.")
    print(f"Every step cached: {full.peak_bytes / 1e6:,.0f} MB. Within {args.budget}:\n")
    print(plan, "\n")

    def error_to_signal(network: fb.Network) -> float:
        return fb.evaluate(network, unheard_x, unheard_y) / float(np.sum(unheard_y**2.0))

    before = error_to_signal(network)
    adam = fb.Adam(lambda step: 0.02 * (1 - step / args.updates) + 1e-4, clip=1.0)
    fit = fb.fit(network, x, y, optimizer=adam, epochs=args.updates, memory=args.budget)
    network = fit.network
    after = error_to_signal(network)
    print("Error-to-signal ratio on notes that it never heard (0 is perfect, 1 is silence):")
    print(f"  untrained {before:.3f}, after {args.updates} exact gradients {after:.4f}")
    if args.picture:
        fit.draw(args.picture, f"{args.seconds:g} s of an amplifier, exact gradients")
    if args.wav:
        o, _ = fb.predict(network, unheard_x)
        save_wav(args.wav, np.concatenate([unheard_x, unheard_y, o])[:, 0])
        print(f"  {args.wav}: the notes, then the amplifier, then the network")
    return before, after


if __name__ == "__main__":
    main()
