"""Where data-parallel training stops scaling, and minibatches that grow by themselves."""
