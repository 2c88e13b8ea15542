"""A wrong path is told from an unknown task, whichever framework answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_video_provider.gateway import NotFoundError, error_from_reply
from airflow_video_provider.gateway.missing import Missing

ROUTE: dict[str, object] = {
    "FastAPI": {"detail": "Not Found"},
    "Spring": {
        "timestamp": "2026-01-01T00:00:00.000+00:00",
        "status": 404,
        "error": "Not Found",
        "path": "/v1/video/query",
    },
    "Spring, with a message": {
        "timestamp": 1,
        "status": 404,
        "error": "Not Found",
        "message": "No message available",
        "path": "/v1/video/query",
    },
    "Spring 3": {"type": "about:blank", "title": "Not Found", "detail": "No static resource v1/video/query."},
    "NestJS": {"message": "Cannot GET /v1/video/query", "error": "Not Found", "statusCode": 404},
    "Laravel": {"message": "The route v1/video/query could not be found.", "exception": "x"},
    "Express": b"<!DOCTYPE html><html><body><pre>Cannot GET /v1/video/query</pre></body></html>",
    "Fastify": {"message": "Route GET:/v1/videos/x not found", "error": "Not Found", "statusCode": 404},
    "Azure": {"error": {"code": "404", "message": "Resource not found"}},
    "Go": b"404 page not found\n",
    "new-api": {"error": {"message": "Invalid URL (GET /v1/video/query)", "type": "invalid_request_error"}},
    "OpenAI": {"error": {"message": "Unrecognized request URL (GET: /v1/video/query)"}},
    "nginx": b"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>nginx</body></html>",
    "Starlette": b"Not Found",
    "Flask": {"message": "The requested URL was not found on the server."},
    "an empty body": b"",
    "a path that names videos": {"error": "path /v1/video/query not found"},
    "an endpoint": {"error": {"message": "endpoint /v1/videos does not exist"}},
    "in Chinese": {"message": "接口不存在"},
}
TASK: dict[str, object] = {
    "new-api": {"code": "task_not_exist", "message": "task_not_exist", "data": None},
    "OpenAI": {"error": {"message": "Video with id 'video_x' not found", "code": "not_found"}},
    "FastAPI's own words": {"detail": "task not found"},
    "a generation": {"detail": "Generation gen-1 not found"},
    "an id": {"error": "unknown id"},
    "a row of a database": {"message": "record not found"},
    "an id with a slash": {"error": {"message": "Video 'kling/v2:abc' not found"}},
    "a job": {"message": "No such job: job_1"},
    "in Chinese": {"message": "任务不存在"},
}
UNCLEAR: dict[str, object] = {
    "a bare text": {"error": "not found"},
    "a bare message": {"message": "Not Found"},
    "a bare envelope": {"error": {"message": "not found", "code": "not_found"}},
    "a bare status": {"code": 404, "message": "Not Found"},
}


def of(body: object, status: int = 404) -> NotFoundError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = error_from_reply(status, {}, content)
    assert isinstance(error, NotFoundError)
    return error


class TestA404:
    @pytest.mark.parametrize("framework", ROUTE)
    def test_of_a_framework_is_a_missing_route(self, framework: str) -> None:
        error = of(ROUTE[framework])
        assert (error.missing, error.no_such_route) == (Missing.ROUTE, True)
        assert "no such route" in str(error)
        assert "no such task" not in str(error)

    @pytest.mark.parametrize("words", TASK)
    def test_that_names_a_task_is_a_missing_task(self, words: str) -> None:
        error = of(TASK[words])
        assert (error.missing, error.no_such_route) == (Missing.TASK, False)
        assert "knows no such task" in str(error)

    @pytest.mark.parametrize("words", UNCLEAR)
    def test_that_names_neither_says_so_and_does_not_end_a_paid_task(self, words: str) -> None:
        error = of(UNCLEAR[words])
        assert (error.missing, error.no_such_route) == (Missing.UNCLEAR, True)
        assert "no such route, or knows no such task" in str(error)

    def test_says_what_the_framework_says_beyond_its_status(self) -> None:
        assert of(ROUTE["NestJS"]).message == "Cannot GET /v1/video/query"

    @pytest.mark.parametrize("words", [{"detail": "Method Not Allowed"}, b""])
    def test_a_wrong_method_is_a_missing_route(self, words: Any) -> None:
        assert of(words, 405).missing is Missing.ROUTE
