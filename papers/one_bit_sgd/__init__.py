"""1-bit SGD: data-parallel training whose gradients travel in one bit a value."""
