"""cogkit.data: readers, transforms, the minibatch source, and one recipe a data set."""
from cogkit.data.format import *
from cogkit.data.recipe import *
