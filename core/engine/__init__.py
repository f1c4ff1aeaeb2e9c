"""The engines: plans, their executor, values, device, random numbers."""
