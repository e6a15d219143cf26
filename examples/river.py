"""Fit a long time series within a memory budget, with NumPy alone.

The level of a river is the outflow of two stores of water: the soil, which empties within a day,
and the ground, which takes three months. To predict the level from the rain, a network must
remember thousands of hours. The exact gradient goes back through all hours, from the last to the
first. Caching every step would take hundreds of megabytes; here it takes 8 MB. At the end, the
script measures how far back the gradient really reaches.

    python examples/river.py [--hours 500000] [--updates 300] [--budget 8MB] [--picture river.png]
"""

from __future__ import annotations

import argparse

import numpy as np

import fastbptt as fb

SOIL, GROUND = 24, 2000
"""Hours after which 1/e of the water in each store is left."""


def rain_and_level(hours: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the hourly rain (T, 1) and the level of the river (T, 1), both float32."""
    rng = np.random.default_rng(seed)
    wet = rng.random(hours) < 0.03  # it rains in one hour of 33
    rain = np.where(wet, rng.exponential(1.0, hours), 0.0)
    soil = ground = 0.0
    level = np.empty(hours)
    for t in range(hours):
        soil += rain[t] - soil / SOIL
        spill = max(0.0, soil - 1.0) / SOIL  # only wet soil feeds the ground
        soil -= spill
        ground += spill - ground / GROUND
        level[t] = soil / SOIL + ground / 50
    level = (level - level.mean()) / level.std()
    return rain[:, None].astype(np.float32), level[:, None].astype(np.float32)


def new_network(hidden: int, seed: int) -> fb.Network:
    """Return an LSTM whose units have time constants from hours to months, as in the task."""
    layer = fb.LSTM.init(1, hidden, rng=seed)
    forget = np.log(np.geomspace(10, 2 * GROUND, hidden))  # Tallec and Ollivier (2018)
    layer.b[hidden : 2 * hidden] = forget
    layer.b[:hidden] = -forget
    return fb.Network(layer, fb.Readout.init(hidden, 1, rng=seed + 1))


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Fit and report; returns the error on unseen data, before and after."""
    parser = argparse.ArgumentParser(description="Fit a long time series in a few megabytes.")
    parser.add_argument("--hours", type=int, default=500_000)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--budget", default="8MB")
    parser.add_argument("--picture", help="draw the learning curve")
    args = parser.parse_args(arguments)

    x, y = rain_and_level(args.hours, seed=0)
    unseen = rain_and_level(max(args.hours // 4, 5 * GROUND), seed=1)
    network = new_network(args.hidden, seed=2)
    full, plan = fb.plan(network, len(x)), fb.plan(network, len(x), memory=args.budget)
    print(f"{len(x):,} hours of rain and river: {len(x) / 8766:.0f} years.")
    print(f"Every step cached would be {full.peak_bytes / 1e6:,.0f} MB. Within {args.budget}:\n")
    print(plan, "\n", flush=True)

    before = fb.evaluate(network, *unseen, reduction="mean")
    adam = fb.Adam(lambda step: 0.02 * (1 - step / args.updates), clip=1.0)
    fit = fb.fit(network, x, y, optimizer=adam, epochs=args.updates, memory=args.budget)
    network = fit.network
    after = fb.evaluate(network, *unseen, reduction="mean")
    print(f"Squared error on {len(unseen[0]):,} other hours, a part of the level's variance:")
    print(f"  untrained {before:.3f}, after {args.updates} exact gradients {after:.3f}")

    if args.picture:
        fit.draw(args.picture, f"{len(x):,} hours of rain and river, exact gradients")
    lags = min(10 * GROUND, len(unseen[0]) // 2)
    reach = fb.gradient_reach(network, *unseen, max_lag=lags)
    print(f"\nHow far back the gradient of one hour's error reaches:\n{reach}")
    return before, after


if __name__ == "__main__":
    main()
