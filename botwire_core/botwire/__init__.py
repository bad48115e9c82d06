"""botwire: the memory that stays. Two lines, no key, no signup, no server.

from botwire import Memory

memory = Memory("user-42")
memory.set("coffee", "Ethiopian Yirgacheffe")
memory.get("coffee")   # "Ethiopian Yirgacheffe", in every later process too
"""

from typing import TYPE_CHECKING, Any

from .errors import (
    AccessDenied,
    BotWireError,
    Conflict,
    CursorExpired,
    EmbedderFailed,
    HistoryExpired,
    HostedOnly,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    RequestReused,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    TooLarge,
)
from .memory import Memory
from .ops import Change, Hit, Item, Message, Policy, Revision

if TYPE_CHECKING:
    from .async_memory import AsyncMemory
    from .conversation import AsyncConversation, Conversation

__version__ = "1.0.0.dev0"

__all__ = [
    "AccessDenied",
    "AsyncConversation",
    "AsyncMemory",
    "BotWireError",
    "Change",
    "Conflict",
    "Conversation",
    "CursorExpired",
    "EmbedderFailed",
    "HistoryExpired",
    "Hit",
    "HostedOnly",
    "InvalidInput",
    "Item",
    "Memory",
    "Message",
    "NotAuthenticated",
    "NotFound",
    "OutcomeUnknown",
    "Policy",
    "QuotaExceeded",
    "RateLimited",
    "RequestReused",
    "Revision",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "StoreUnavailable",
    "TooLarge",
]

# Names that are imported when they are asked for: the async twin, and what other modules and adapters hold.
_LAZY = {
    "AsyncMemory": "botwire.async_memory",
    "AsyncConversation": "botwire.conversation",
    "Conversation": "botwire.conversation",
    "BotWireChatHistory": "botwire_langchain",
    "memory_tools": "botwire_crewai",
}
_HOSTED = frozenset(
    [
        "Channel",
        "ChannelNotFound",
        "InvalidType",
        "PaymentRequired",
        "PostFailed",
        "RegistrationRequired",
        "register",
    ]
)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    if name in _HOSTED:
        raise HostedOnly(
            f"botwire.{name} belongs to the hosted platform of botwire 0.2; this library is the memory alone. "
            "Stay on botwire==0.2.1 for it"
        )
    raise AttributeError(f"module 'botwire' has no attribute {name!r}")
