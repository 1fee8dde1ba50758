from vggbn import evaluate as evaluate
from vggbn import models as nets
from vggbn.evaluate import Trained as Trained
from vggbn.evaluate import by_batch as by_batch
from vggbn.evaluate import centre as centre
from vggbn.evaluate import dense as dense
from vggbn.evaluate import mean_posterior as mean_posterior
from vggbn.evaluate import multi_crop as multi_crop
from vggbn.nn.batch_norm import batch_norm as batch_norm

__version__: str
__all__ = [
    "Trained",
    "__version__",
    "batch_norm",
    "by_batch",
    "centre",
    "dense",
    "evaluate",
    "mean_posterior",
    "multi_crop",
    "nets",
]
