"""The model, its losses and optimizers, precision, devices: the parts of one step of one run."""
