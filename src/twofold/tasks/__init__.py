"""What good means: target, loss, decoding and metrics, one file per kind of problem."""
