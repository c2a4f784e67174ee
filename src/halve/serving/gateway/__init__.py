"""The HTTP server: Open Inference Protocol v2 in, the stages of a stack inside, metrics out."""

from halve.serving.gateway.chain import CACHE_STAGE, Answered, Chain, InputSpec, Limits
from halve.serving.gateway.gateway import Gateway
from halve.serving.gateway.offline import answer_offline
from halve.serving.gateway.server import Server, serve

__all__ = [
    "CACHE_STAGE",
    "Answered",
    "Chain",
    "Gateway",
    "InputSpec",
    "Limits",
    "Server",
    "answer_offline",
    "serve",
]
