"""The cells of the oracle: a step and its reverse in NumPy. Another cell is another class here."""

import numpy as np
from oracle_losses import ACTIVATIONS, sigmoid


class RNN:
    """Elman: s = g(U x + W s' + b); the state is the tuple (s,)."""

    states = 1

    @staticmethod
    def step(p, x, state):
        g, _ = ACTIVATIONS[p["activation"]]
        s = g(x @ p["U"].T + state[0] @ p["W"].T + p["b"])
        return (s,), None

    @staticmethod
    def reverse(p, before, after, saved, dstate):
        """dL/d(pre-activation), dL/d(old state), and the gradient of all arrays but U and b."""
        _, derivative = ACTIVATIONS[p["activation"]]
        delta = dstate[0] * derivative(after[0])
        return delta, (delta @ p["W"],), {"W": delta.T @ before[0]}


class LSTM:
    """Gates i, f, g, o: c = f*c' + i*g and s = o*tanh(c); the state is the tuple (s, c)."""

    states = 2

    @staticmethod
    def step(p, x, state):
        s, c = state
        a = np.split(x @ p["U"].T + s @ p["W"].T + p["b"], 4, axis=1)
        i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2]), sigmoid(a[3])
        c = f * c + i * g
        return (o * np.tanh(c), c), (i, f, g, o)

    @staticmethod
    def reverse(p, before, after, saved, dstate):
        i, f, g, o = saved
        ds, dc = dstate
        tanh_c = np.tanh(after[1])
        dc = dc + ds * o * (1 - tanh_c**2)
        di = dc * g * i * (1 - i)
        df = dc * before[1] * f * (1 - f)
        dg = dc * i * (1 - g**2)
        do = ds * tanh_c * o * (1 - o)
        delta = np.concatenate([di, df, dg, do], axis=1)
        return delta, (delta @ p["W"], dc * f), {"W": delta.T @ before[0]}


class PeepholeLSTM:
    """An LSTM whose gates i and f see c', and o sees c, each by a weight a unit."""

    states = 2

    @staticmethod
    def step(p, x, state):
        s, c = state
        a = np.split(x @ p["U"].T + s @ p["W"].T + p["b"], 4, axis=1)
        p_i, p_f, p_o = np.split(p["p"], 3)
        i, f, g = sigmoid(a[0] + p_i * c), sigmoid(a[1] + p_f * c), np.tanh(a[2])
        c = f * c + i * g
        o = sigmoid(a[3] + p_o * c)
        return (o * np.tanh(c), c), (i, f, g, o)

    @staticmethod
    def reverse(p, before, after, saved, dstate):
        i, f, g, o = saved
        ds, dc = dstate
        p_i, p_f, p_o = np.split(p["p"], 3)
        tanh_c = np.tanh(after[1])
        do = ds * tanh_c * o * (1 - o)
        dc = dc + ds * o * (1 - tanh_c**2) + do * p_o
        di = dc * g * i * (1 - i)
        df = dc * before[1] * f * (1 - f)
        dg = dc * i * (1 - g**2)
        delta = np.concatenate([di, df, dg, do], axis=1)
        dp = [(di * before[1]).sum(0), (df * before[1]).sum(0), (do * after[1]).sum(0)]
        dbefore = (delta @ p["W"], dc * f + di * p_i + df * p_f)
        return delta, dbefore, {"W": delta.T @ before[0], "p": np.concatenate(dp)}


class GRU:
    """Gates r, z, n: s = (1-z)*n + z*s'. The reset gate acts after the product with W_n."""

    states = 1

    @staticmethod
    def step(p, x, state):
        (s,) = state
        x_r, x_z, x_n = np.split(x @ p["U"].T + p["b"], 3, axis=1)
        s_r, s_z, s_n = np.split(s @ p["W"].T, 3, axis=1)
        r, z = sigmoid(x_r + s_r), sigmoid(x_z + s_z)
        n = np.tanh(x_n + r * (s_n + p["bn"]))
        return ((1 - z) * n + z * s,), (r, z, n, s_n + p["bn"])

    @staticmethod
    def reverse(p, before, after, saved, dstate):
        r, z, n, m = saved
        (ds,) = dstate
        dn = ds * (1 - z) * (1 - n**2)
        dr = dn * m * r * (1 - r)
        dz = ds * (before[0] - n) * z * (1 - z)
        recurrent = np.concatenate([dr, dz, dn * r], axis=1)
        others = {"W": recurrent.T @ before[0], "bn": (dn * r).sum(0)}
        return np.concatenate([dr, dz, dn], axis=1), (ds * z + recurrent @ p["W"],), others


class GRUBefore:
    """The GRU whose reset gate acts before the product: W_n (r*s')."""

    states = 1

    @staticmethod
    def step(p, x, state):
        (s,) = state
        H = s.shape[1]
        a = x @ p["U"].T + p["b"]
        r, z = np.split(sigmoid(a[:, : 2 * H] + s @ p["W"][: 2 * H].T), 2, axis=1)
        n = np.tanh(a[:, 2 * H :] + (r * s) @ p["W"][2 * H :].T + p["bn"])
        return ((1 - z) * n + z * s,), (r, z, n)

    @staticmethod
    def reverse(p, before, after, saved, dstate):
        r, z, n = saved
        (ds,), (s,) = dstate, before
        H = s.shape[1]
        dn = ds * (1 - z) * (1 - n**2)
        dz = ds * (s - n) * z * (1 - z)
        drs = dn @ p["W"][2 * H :]
        dr = drs * s * r * (1 - r)
        gates = np.concatenate([dr, dz], axis=1)
        W = np.concatenate([gates.T @ s, dn.T @ (r * s)])
        dbefore = ds * z + drs * r + gates @ p["W"][: 2 * H]
        return np.concatenate([gates, dn], axis=1), (dbefore,), {"W": W, "bn": dn.sum(0)}


CELLS = {
    "rnn": RNN,
    "lstm": LSTM,
    "lstm-peephole": PeepholeLSTM,
    "gru": GRU,
    "gru-before": GRUBefore,
}
