"""cogkit.data: readers, transforms, the minibatch source, and one recipe a data set."""

from cogkit.data import transforms
from cogkit.data.convert import *
from cogkit.data.ctf import *
from cogkit.data.deserializers import *
from cogkit.data.folder import *
from cogkit.data.format import *
from cogkit.data.htk import *
from cogkit.data.htk_readers import *
from cogkit.data.image_files import *
from cogkit.data.recipe import *
from cogkit.data.sequences import *
from cogkit.data.source import *
from cogkit.data.streams import *
from cogkit.data.user import *
