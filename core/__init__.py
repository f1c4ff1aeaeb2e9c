"""cogkit: a cognitive toolkit in the line of CNTK v2."""
