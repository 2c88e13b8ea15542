from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import get_type_hints

import pytest

from airflow_video_provider.media import BadDestination, DownloadOptions
from airflow_video_provider.media.options import Policies


def test_a_check_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="check: 'nothing' is none; allowed: structure, packets, frames"):
        DownloadOptions(check="nothing")  # type: ignore[arg-type]


def test_an_if_exists_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(BadDestination, match="if_exists: 'perhaps' is none; allowed: skip, overwrite, fail"):
        DownloadOptions(if_exists="perhaps")  # type: ignore[arg-type]


def test_options_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        DownloadOptions().attempts = 3  # type: ignore[misc]


def test_every_field_is_documented() -> None:
    doc = DownloadOptions.__doc__ or ""
    assert [field.name for field in fields(DownloadOptions) if f":param {field.name}:" not in doc] == []


def test_every_policy_is_an_option() -> None:
    assert set(get_type_hints(Policies)) <= {field.name for field in fields(DownloadOptions)}
