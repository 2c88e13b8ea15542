"""How one family of endpoints is asked and read, as data: :class:`Dialect`.

The three of this package are in :mod:`~airflow_video_provider.gateway.dialects`; another package registers
one through an entry point, a connection brings one in its extra. docs/dialects.md shows both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.request import VideoRequest
from airflow_video_provider.gateway.state import TaskState

__all__ = ["KNOBS", "Dialect", "Encoding", "Spelling"]

#: What of a request a dialect may spell; prompt and model have fields of their own.
KNOBS = frozenset(VideoRequest.model_fields) - {"prompt", "model", "input_reference", "extra_body"}

Encoding = Literal["json", "multipart", "multipart_with_file"]


def _a_path(path: str) -> str:
    if not path.startswith("/") or path.startswith("//") or re.search(r"[\s\\#]", path):
        raise ValueError("must be a path that starts with one /, without spaces")
    if unknown := set(re.findall(r"\{(.*?)\}", path)) - {"id", "model"}:
        raise ValueError(f"may hold {{id}} and {{model}}, not {{{sorted(unknown)[0]}}}")
    return path


def _with_id(path: str) -> str:
    if "{id}" not in path:
        raise ValueError("must hold {id}, where the task's id goes")
    return path


def _a_field(place: str) -> str:
    first, *rest = place.split(".")
    if first.isdigit() or any(step.isdigit() and len(step) > 2 for step in rest):
        raise ValueError("must begin with a name; positions in lists go to 99")
    return place


def _names_only(place: str) -> str:
    if any(step.isdigit() for step in place.split(".")):
        raise ValueError("must hold names only")
    return place


_PLACE = r"[^.\s]+(\.[^.\s]+)*"
Route = Annotated[str, AfterValidator(_a_path)]
RouteOfATask = Annotated[str, AfterValidator(_a_path), AfterValidator(_with_id)]
PlaceText = Annotated[str, StringConstraints(pattern=rf"^{_PLACE}$")]
FieldPlace = Annotated[PlaceText, AfterValidator(_a_field)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]


class Spelling(BaseModel):
    """How a knob of :class:`VideoRequest` is written in the body.

    As text it is the field's name: ``"duration"`` is short for ``{"field": "duration"}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: FieldPlace
    """The field's place: dots go into objects, numbers into lists (``parameters.size``)."""
    write: Literal["same", "text", "integer", "list", "one", "image_urls"] = "same"
    """How its value is written: as it is, as text (``"8"``), as a whole number, as a list, the only one of a
    list, or pictures as ``[{"type": "image_url", "image_url": {"url": …}}]``."""


class Dialect(BaseModel):
    """One family of endpoints, as data.

    Only ``name``, ``create_path`` and ``query_path`` are required. Replies are read by the one reader that
    all dialects share; what a dialect says of a reply (``id_places``, ``status_words``, ``outcome``,
    ``url_places``, ``cost_places``) comes before what the reader knows by itself, and is needed only where
    the two differ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]

    # -- asking --
    create_path: Route
    """May hold ``{model}``, for gateways that have it in the path."""
    create_method: Literal["POST", "PUT"] = "POST"
    create_encoding: Encoding = "json"
    """``json``; ``multipart`` always (vLLM-Omni); ``multipart_with_file``: JSON unless a file is sent (the
    openai format; SGLang's multipart must carry the file)."""
    file_field: str | None = None
    """The multipart field of a reference file; None sends it among the pictures, as base64."""
    prompt_field: FieldPlace = "prompt"
    model_field: FieldPlace | None = "model"
    """None where the path has the model."""
    spelling: dict[
        str, Annotated[Spelling, BeforeValidator(lambda v: {"field": v} if isinstance(v, str) else v)]
    ] = Field(default_factory=dict)
    """Knob of a request -> field of the body. A knob that is not here cannot be expressed."""
    constants: dict[FieldPlace, Any] = Field(default_factory=dict)
    """Fields that every create has: place -> value."""
    extra_field: Annotated[PlaceText, AfterValidator(_names_only)] | None = None
    """Where ``extra_body`` goes; None for the body itself."""
    query_path: Route
    query_method: Literal["GET", "POST"] = "GET"
    query_body: dict[str, Any] | None = None
    """The query's JSON body, ``{id}`` in its texts being the task's id; without one, the path holds it."""
    content_path: RouteOfATask | None = "/v1/videos/{id}/content"
    """Where the gateway itself serves the bytes; None where it does not."""
    list_path: Route | None = None
    """Where the account's newest tasks are listed, for the message about a create whose reply was lost."""
    cancel_path: RouteOfATask | None = None
    cancel_method: Literal["DELETE", "POST", "PUT"] = "DELETE"
    balance_path: Route | None = None
    """Where the gateway tells the balance; None tries the routes of new-api."""

    # -- who asks --
    auth_header: HeaderName = "Authorization"
    auth_scheme: str = "Bearer"
    """Before the key in that header; "" for the key alone."""
    headers: dict[HeaderName, str] = Field(default_factory=dict, repr=False)
    """Static headers of every request."""

    # -- reading --
    id_places: tuple[PlaceText, ...] = ()
    status_words: dict[Annotated[str, StringConstraints(to_lower=True, strip_whitespace=True)], TaskState] = (
        Field(default_factory=dict)
    )
    """The gateway's words that mean something of their own, in any case: ``{"dreaming": "running"}``."""
    outcome: Literal["status", "error", "done"] = "status"
    """What decides how a task ended: the status word alone; an error beside a word that means success (fal's
    COMPLETED with an ``error``); or the flag ``done`` and the error beside it (long-running operations)."""
    url_places: tuple[PlaceText, ...] = ()
    """Where the video's URL is; ``*`` is every item of a list."""
    url_in_reply: bool = True
    """False where a finished task's reply need not hold a URL, because there is a content route for all."""
    file_needs_key: bool = False
    """True where the URL in the reply is the gateway's own route, which wants the key: it is then asked at
    the connection's address, the only one that the key is sent to."""
    cost_places: tuple[PlaceText, ...] = ()
    """Numbers that tell what a task cost, beyond those that the reader knows."""
    poll_floor: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Seconds: the gateway asks not to be queried oftener than this for one task."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if unknown := sorted(set(self.spelling) - KNOBS):
            raise ValueError(
                f"spelling.{unknown[0]}: is no knob of a request; those are {', '.join(sorted(KNOBS))}"
            )
        if self.query_body is None and "{id}" not in self.query_path:
            raise ValueError("query_path: must hold {id}, where the task's id goes")
        if self.model_field is None and "{model}" not in self.create_path:
            raise ValueError("model_field: is missing, and create_path holds no {model}")
        if self.create_encoding != "json" and self.file_field is None:
            raise ValueError("file_field: is missing; a multipart create needs the name of the file's field")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def __str__(self) -> str:
        return self.name

    @classmethod
    def from_object(cls, value: Mapping[str, Any], *, known: Mapping[str, Dialect]) -> Dialect:
        """Make a dialect from plain JSON, as an entry point or a connection's extra has it.

        :param value: the fields; ``base`` names a dialect whose fields hold where the object has none.
        :param known: the dialects that ``base`` may name.
        :raises InvalidRequestError: naming the field that is wrong and what it may be.
        """
        fields = dict(value)
        if (base := fields.pop("base", None)) is not None:
            try:
                fields = {**known[base].model_dump(), **fields}
            except (KeyError, TypeError):
                raise InvalidRequestError(
                    f"dialect.base: {base!r} is none; allowed: {', '.join(known)}"
                ) from None
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequestError("; ".join(_problems(error))) from None


def _problems(error: ValidationError) -> list[str]:
    words = {"missing": "is missing", "extra_forbidden": "is no field of a dialect"}
    told = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"])
        what = words.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        told.append(f"dialect.{where}: {what}" if where else f"dialect.{what}")
    return told
