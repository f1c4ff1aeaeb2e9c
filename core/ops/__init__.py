"""All ops: one file a family, an op is one record."""

from cogkit.ops import sequence, sparse, windows
from cogkit.ops.alignment import *  # noqa: F403
from cogkit.ops.convolution import *  # noqa: F403
from cogkit.ops.graph import *  # noqa: F403
from cogkit.ops.indexing import *  # noqa: F403
from cogkit.ops.linear import *  # noqa: F403
from cogkit.ops.native import *  # noqa: F403
from cogkit.ops.normalization import *  # noqa: F403
from cogkit.ops.pointwise import *  # noqa: F403
from cogkit.ops.pooling import *  # noqa: F403
from cogkit.ops.randomness import *  # noqa: F403
from cogkit.ops.ranking import *  # noqa: F403
from cogkit.ops.recurrent import *  # noqa: F403
from cogkit.ops.reduction import *  # noqa: F403
from cogkit.ops.row_spaces import *  # noqa: F403
from cogkit.ops.sampling import *  # noqa: F403
from cogkit.ops.shape import *  # noqa: F403
from cogkit.ops.spatial import *  # noqa: F403
from cogkit.ops.user import *  # noqa: F403
