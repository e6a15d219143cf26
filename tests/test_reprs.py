"""Short reprs, and tables in HTML for notebooks."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import make_problem

import fastbptt as fb
from fastbptt.memory import html


def everything():
    """What a notebook may show, by name."""
    q = make_problem("rnn-tanh", (40, 2, 3, 4, 2), "float32")
    stack = fb.Stack([fb.LSTM.init(3, 4), fb.Bidirectional(fb.RNN.init(4, 5), fb.GRU.init(4, 6))])
    h, _, cache = fb.forward(q.layer, q.x)
    gradient = fb.backward(cache, h, deltas=True, keep=True)
    return {
        "RNN": q.layer,
        "LSTM": fb.LSTM.init(2, 3, peepholes=True),
        "GRU": fb.GRU.init(2, 3),
        "Readout": q.readout,
        "Network": q.network,
        "a network without a readout": fb.Network(stack, None),
        "Stack": stack,
        "Bidirectional": stack.layers[1],
        "Plan": fb.plan(q.network, 10**6, 2, memory="1MB"),
        "a truncated Plan": fb.plan(q.network, 10**6, 2, memory=fb.Truncated(5, 9)),
        "Frontier": fb.frontier(q.network, 10**5),
        "Reach": fb.gradient_reach(q.network, q.x, q.y),
        "a Reach of no gradient": fb.gradient_reach(
            q.network, q.x, None, lambda h, y, start: (0.0, 0 * h)
        ),
        "Result": fb.bptt(q.network, q.x, q.y, input_grad=True),
        "Gradient": gradient,
        "Cache": cache,
    }


VALUES = everything()


class Cells(HTMLParser):
    """The texts of the cells; fails at tags that are not closed, or are no part of a table."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        assert tag in ("table", "caption", "tr", "th", "td") and not attrs
        self.open.append(tag)
        if tag in ("caption", "th", "td"):
            self.texts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts[-1] += data


def cells(value):
    parser = Cells()
    parser.feed(value._repr_html_())
    parser.close()
    assert not parser.open
    return parser.texts


@pytest.mark.parametrize("name", VALUES)
def test_a_repr_is_one_short_line_and_the_html_a_small_table(name):
    value = VALUES[name]
    text = repr(value)
    assert "\n" not in text and len(text) <= 240 and "array(" not in text
    assert text.startswith(type(value).__name__ + "(")
    shown = value._repr_html_()
    assert shown.startswith("<table>") and shown.endswith("</table>") and len(shown) < 4000
    texts = cells(value)
    assert len(texts) >= 3 and not any("object at 0x" in cell for cell in texts)


def test_what_reprs_say():
    r = VALUES["Result"]
    assert repr(r) == f"Result(loss={r.loss:.6g}, grad={r.grad!r})"
    layer, readout = VALUES["RNN"], VALUES["Readout"]
    assert repr(VALUES["Network"]) == f"Network(layer={layer!r}, readout={readout!r})"
    assert repr(VALUES["Gradient"]) == (
        "Gradient(layer=RNN(3 -> 4, float32, 'tanh'), x=float32 (40, 2, 3))"
    )
    plan = fb.plan(VALUES["Network"], 100, 2)
    assert re.fullmatch(
        r"Plan\(T=100, B=2, full: exact, [\d.]+ kB, time factor 1\.000\)", repr(plan)
    )
    assert "truncated" in repr(VALUES["a truncated Plan"])
    frontier = VALUES["Frontier"]
    assert repr(frontier).startswith(f"Frontier({len(frontier)} plans of ")
    assert repr(type(frontier)()) == "Frontier(0 plans)"
    reach = VALUES["Reach"]
    assert repr(reach) == f"Reach(k2={reach.k2}, share=0.01, decay={reach.decay:.6g})"


def test_tables_hold_what_the_values_hold():
    network = VALUES["Network"]
    texts = cells(network)
    assert texts[0] == "Network" and {"layer", "readout", "all"} <= set(texts)
    total = sum(a.size for a in network.arrays())
    assert texts[-1] == f"{total:,} ({4 * total} B)"
    assert "layers[1].backward" in cells(VALUES["Stack"])
    r = VALUES["Result"]
    norm = np.linalg.norm(r.grad.flat().astype(float))
    assert f"{r.loss:.6g}" in cells(r) and f"{norm:.6g}" in cells(r)
    for name in ("Plan", "Frontier"):
        shown = " ".join(" ".join(cells(VALUES[name])).split())
        assert all(part in shown for part in str(VALUES[name]).split())
    reach = VALUES["Reach"]
    for line in str(reach).splitlines():
        assert all(part.rstrip(";") in " ".join(cells(reach)) for part in line.split())


def test_every_text_is_escaped():
    class Bold(fb.Readout):
        def __repr__(self):
            return "<b>&mine"

    network = fb.Network(VALUES["RNN"], Bold.init(4, 2))
    assert "<b>" not in network._repr_html_() and "<b>&mine" in cells(network)
    text = html.table("<i>", [("<i>", "<i>")], ["<i>", "<i>"])
    assert text.count("&lt;i&gt;") == 5 and "<i>" not in text


def test_a_consumed_cache_says_so():
    q = make_problem("rnn-tanh")
    h, _, cache = fb.forward(q.layer, q.x)
    assert "ready for backward" in cells(cache)
    fb.backward(cache, h)
    assert repr(cache) == "Cache(consumed)" and "consumed" in cells(cache)


def test_gradients_that_are_no_numbers_are_shown():
    r = fb.bptt(VALUES["Network"], np.full((3, 1, 3), np.nan, "f4"), np.zeros((3, 1, 2), "f4"))
    assert "nan" in repr(r) and "nan" in cells(r)


def test_the_table_of_a_network_has_its_own_state():
    layer = fb.LSTM.init(2, 3, rng=0)
    state = (np.zeros(3, np.float32), np.ones(3, np.float32))
    network = fb.Network(layer, fb.Readout.init(3, 1, rng=1), state)
    table = network._repr_html_()
    assert "<th>state</th>" in table and "((3,), (3,))" in table
    assert f"{sum(a.size for a in network.arrays()):,}" in table
