"""OpenRouter's video API (POST /api/v1/videos), as a dialect that is added like any other: by entry point.

The connection's host is https://openrouter.ai/api. Sources: OpenRouter's documentation ("Video Generation",
"Submit a video generation request") and its Python SDK, ``components/videogeneration*.py``.
"""

from __future__ import annotations

from airflow_video_provider.gateway.dialect import Dialect

__all__ = ["OPENROUTER"]

OPENROUTER = Dialect.model_validate(
    {
        "name": "openrouter",
        "create_path": "/v1/videos",
        "query_path": "/v1/videos/{id}",
        "content_path": "/v1/videos/{id}/content?index=0",
        "spelling": {
            # An integer, where the openai dialect has its seconds as text.
            "seconds": {"field": "duration", "write": "integer"},
            "aspect_ratio": "aspect_ratio",
            "size": "size",
            "callback_url": "callback_url",
            "images": {"field": "input_references", "write": "image_urls"},
        },
        # Signed ones, where they are told, need no key; the others are OpenRouter's own route, which does.
        "url_places": ["urls.*", "unsigned_urls.*"],
        "url_in_reply": False,
        "file_needs_key": True,
        "cost_places": ["usage.cost"],
        "balance_path": "/v1/credits",
        # "Poll every 10 to 30 seconds."
        "poll_floor": 10,
    }
)
