"""cogkit.data: readers and one recipe a data set."""
