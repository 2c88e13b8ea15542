"""What one sandbox is started with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sandbox behaves. Every default suits a person who writes a Dag at a desk.

    :param seconds: generation time of one task, in seconds. 0 finishes at once.
    :param key: the API key that callers must send as ``Authorization: Bearer KEY``.
    :param balance: US dollars that may be spent before creates are refused with
        ``insufficient_user_quota``. ``None``: no limit.
    :param expire: life of a signed URL, in seconds.
    :param prefix: path that stands before every gateway route, such as ``/relay``; control routes,
        the CDN and the status page stay at the root. Empty: none.
    :param cdn_origin: origin of the video URLs in replies, such as ``http://127.0.0.1:9000``.
        Empty: the origin that the caller used, so that the sandbox also works behind a port mapping.
    :param strict_openai: tell tasks of the ``openai`` dialect as OpenAI's own API does, whatever the model:
        all fields of its ``Video`` and no other, and no ``video_url``. LiteLLM reads nothing else.
    :param seed: ids and signatures are derived from it; two sandboxes with one seed hand out the same
        ids in the same order. Random by default.
    """

    seconds: float = 20.0
    key: str = "sandbox-key"
    balance: float | None = None
    expire: float = 3600.0
    prefix: str = ""
    cdn_origin: str = ""
    strict_openai: bool = False
    seed: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        if self.seconds < 0 or self.expire <= 0:
            raise ValueError("seconds must be 0 or more, and expire more than 0")
        if not self.key:
            raise ValueError("key must not be empty: a gateway without a key is not what Dags will meet")
        if self.prefix and (not self.prefix.startswith("/") or self.prefix.endswith("/")):
            raise ValueError(f"prefix must start with / and not end with it: {self.prefix!r}")
