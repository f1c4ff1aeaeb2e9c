"""cogkit.papers: one folder a paper, all with the same contract."""
