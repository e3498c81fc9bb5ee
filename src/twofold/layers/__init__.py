"""Layers that share nothing across space or time, and what every layer is: routes, the bridge to autograd, the witnesses."""
