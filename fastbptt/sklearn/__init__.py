"""fastbptt in scikit-learn: estimators of whole sequences, or of every step of them.

`import fastbptt` alone does not import it, nor scikit-learn.
"""

from ..kernels import optional

optional.load("sklearn", "fastbptt.sklearn needs", "pip install 'fastbptt[sklearn]'")

from .estimators import SequenceClassifier as SequenceClassifier  # noqa: E402
from .estimators import SequenceRegressor as SequenceRegressor  # noqa: E402

__all__ = ["SequenceClassifier", "SequenceRegressor"]
