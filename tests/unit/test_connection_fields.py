"""One table of settings: the extra that is read, the form, the document and the clients agree."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_args

from airflow_video_provider.connection_fields import CONNECTION_FIELDS
from airflow_video_provider.gateway import GatewaySettings
from airflow_video_provider.gateway.dialect import Encoding
from airflow_video_provider.gateway.dialects import known_dialects

DOCUMENT = Path(__file__).parents[2] / "docs" / "connection.md"
FIELDS = {field.name: field for field in CONNECTION_FIELDS}


def test_the_clients_settings_are_the_connections() -> None:
    beside_the_extra = {"base_url", "api_key"}
    settings = {field.name for field in fields(GatewaySettings) if field.init}
    assert {name for name, field in FIELDS.items() if field.of_gateway} == settings - beside_the_extra


def test_the_document_lists_them_in_these_words() -> None:
    listed = [
        line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| extra `")
    ]
    assert listed == [f"| extra `{field.name}` | {field.meaning} |" for field in CONNECTION_FIELDS]


def test_what_the_form_shows_for_an_empty_field_is_a_value_that_is_read() -> None:
    for field in CONNECTION_FIELDS:
        field.read(field.placeholder)


def test_the_form_names_the_choices_that_there_are() -> None:
    assert tuple(FIELDS["create_encoding"].schema["examples"]) == get_args(Encoding)
    # Those of other packages are installed on one machine and not on the next.
    assert set(FIELDS["dialect"].schema["examples"]) <= set(known_dialects())
