"""An HTTP server in front of an OpenAI-compatible one: answers from a cache what it may, passes on the rest."""

from halve.serving.chat.app import ChatApp, ChatLimits
from halve.serving.chat.ports import ChatFound, ChatMemory, ChatQuestion, Flights, Landed
from halve.serving.chat.server import ChatServer
from halve.serving.chat.upstream import Upstream

__all__ = [
    "ChatApp",
    "ChatFound",
    "ChatLimits",
    "ChatMemory",
    "ChatQuestion",
    "ChatServer",
    "Flights",
    "Landed",
    "Upstream",
]
