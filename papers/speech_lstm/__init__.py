"""Acoustic models of speech: feed-forward, recurrent, both ways, and their combination (Xiong et al. 2017; CNTK's AN4 example)."""
