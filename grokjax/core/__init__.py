"""The model, its losses and optimizers, precision, devices: what one step of one run is made of."""
