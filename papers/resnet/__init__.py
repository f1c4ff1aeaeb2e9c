"""Deep residual learning (He et al. 2016) on small images."""
