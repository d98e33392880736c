"""Start one TorchServe and stay with it."""
