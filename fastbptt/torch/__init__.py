"""fastbptt in PyTorch: modules in place of torch.nn.RNN, GRU and LSTM, with exact gradients.

`import fastbptt` alone does not import it, nor PyTorch.
"""

from ..kernels import optional

optional.load("torch", "fastbptt.torch needs", "pip install 'fastbptt[torch]'")

from .acceleration import accelerate as accelerate  # noqa: E402
from .functional import recurrent as recurrent  # noqa: E402
from .modules import GRU as GRU  # noqa: E402
from .modules import LSTM as LSTM  # noqa: E402
from .modules import RNN as RNN  # noqa: E402

__all__ = ["GRU", "LSTM", "RNN", "accelerate", "recurrent"]
