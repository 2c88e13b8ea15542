"""What to generate, checked before anything is paid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from airflow_video_provider.gateway.errors import InvalidRequestError

__all__ = ["ReferenceFile", "VideoRequest", "request_from"]

NonBlank = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True)
class ReferenceFile:
    """A reference picture or clip to send along.

    :param name: file name as the gateway shall see it, with its extension.
    :param content: the bytes, sent as they are.
    :param content_type: MIME type, ``image/png`` for example.
    """

    name: str
    content: bytes
    content_type: str = "application/octet-stream"

    def __repr__(self) -> str:
        return f"ReferenceFile({self.name!r}, {len(self.content)} bytes, {self.content_type!r})"


def _drop_empty_text(value: object) -> object:
    """A template that renders to nothing means "not given"; "None" is what Jinja makes of None."""
    return None if isinstance(value, str) and value.strip() in {"", "None"} else value


Optional = BeforeValidator(_drop_empty_text)
Text = Annotated[NonBlank | None, Optional]
Flag = Annotated[bool | None, Optional]


class VideoRequest(BaseModel):
    """A generation to pay for.

    Everything but ``prompt`` and ``model`` is optional, and only what is given is sent. A knob that the
    connection's dialect spells differently is translated; one that it cannot express is refused by
    :func:`~airflow_video_provider.gateway.wire.create_request` before anything is sent. Numbers and
    booleans may come as text, as Airflow's templates render them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    prompt: NonBlank
    model: NonBlank
    images: Annotated[
        tuple[NonBlank, ...],
        BeforeValidator(lambda v: (v,) if isinstance(v, str) else v or ()),
        BeforeValidator(_drop_empty_text),
    ] = ()
    """URLs or base64 of first/last frames or components."""
    aspect_ratio: Annotated[
        Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[1-9]\d*:[1-9]\d*$")] | None,
        Optional,
    ] = None
    """``16:9``, ``9:16``, ``2:3``…"""
    size: Text = None
    """``1280x720``, ``small``, ``720P``: as the model and dialect have it."""
    seconds: Annotated[
        Annotated[int, Field(gt=0, le=3600)] | None,
        Optional,
        Field(validation_alias=AliasChoices("seconds", "duration")),
    ] = None
    """Length of the video in seconds; ``duration`` on the wire where the dialect has it so."""
    orientation: Annotated[Literal["portrait", "landscape"] | None, Optional] = None
    enhance_prompt: Flag = None
    enable_upsample: Flag = None
    watermark: Flag = None
    private: Flag = None
    input_reference: Annotated[NonBlank | ReferenceFile | None, Optional] = None
    """An http(s) URL, or the file itself."""
    metadata: dict[str, Any] | None = None
    """Model-specific settings of the ``newapi`` dialect."""
    callback_url: Annotated[
        Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^https?://[^\s/]+\S*$")] | None,
        Optional,
    ] = None
    """Where the gateway reports the end, too, in dialects that have it. Nothing here waits for it or believes
    it: the gateway is queried all the same."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields that the gateway has and this class has not, passed through untouched."""

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        for name in ("metadata", "extra_body"):
            try:
                json.dumps(getattr(self, name), allow_nan=False, ensure_ascii=False).encode()
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} must be plain JSON: {error}") from None
        return self


def request_from(**knobs: Any) -> VideoRequest:
    """Build a :class:`VideoRequest`, leaving out what is None.

    :raises InvalidRequestError: naming each field that is wrong and what it may be.
    """
    try:
        return VideoRequest(**{name: value for name, value in knobs.items() if value is not None})
    except ValidationError as error:
        raise InvalidRequestError(
            "the generation was not submitted, nothing was paid: " + "; ".join(_problems(error))
        ) from None


_EXAMPLES = {"aspect_ratio": "16:9", "callback_url": "https://example.com/done"}
_PLAIN_WORDS = {
    "string_too_short": "must not be empty",
    "missing": "must not be empty",
    "extra_forbidden": "is no field of a request; pass a gateway's own fields in extra_body",
    "string_pattern_mismatch": "must look like {example}",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a text, or a list of texts",
}


def _problems(error: ValidationError) -> list[str]:
    return sorted(
        {
            "".join(f"{part}: " for part in problem["loc"][:1])
            + _PLAIN_WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, ")).replace(
                "{example}", _EXAMPLES.get(str(problem["loc"][0]), "") if problem["loc"] else ""
            )
            for problem in error.errors(include_url=False, include_input=False)
        }
    )
