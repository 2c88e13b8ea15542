"""``@task.video``: a function that returns what to show; the rest is :class:`VideoGenerateOperator`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import DecoratedOperator, KeywordParameters, task_decorator_factory

from airflow_video_provider.operators.generate import VideoGenerateOperator
from airflow_video_provider.operators.knobs import KNOBS

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

__all__ = ["video_task"]


class _VideoDecoratedOperator(DecoratedOperator, VideoGenerateOperator):
    """A :class:`VideoGenerateOperator` whose request comes from a function.

    What the function returns is taken as it is. The operator's own arguments are templates, but a returned
    text may come from anywhere, a language model for example, and must not be able to read Variables.
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *VideoGenerateOperator.template_fields,
    )
    template_fields_renderers = {  # noqa: RUF012  as in BaseOperator
        **DecoratedOperator.template_fields_renderers,
        **VideoGenerateOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.video"
    #: Airflow 3 shows the arguments of the request that was made, not those before the function ran.
    overwrite_rtif_after_execution = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., str | Mapping[str, Any]],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        prompt: str = "",
        model: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            prompt=prompt,
            model=model,
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Call the function, then do what the operator does."""
        arguments = KeywordParameters.determine(self.python_callable, self.op_args, context).unpacking()
        returned = self.python_callable(*self.op_args, **{**arguments, **self.op_kwargs})
        self._take(_request_of(returned, self.python_callable.__name__))
        # Past DecoratedOperator's, which in 3.0 calls a method that no operator has there. It would push
        # multiple outputs, which Airflow does itself since.
        return VideoGenerateOperator.execute(self, context)

    def execute_complete(
        self, context: Context, event: dict[str, Any], asked: Mapping[str, Any] | None = None
    ) -> Any:
        """Resume in a fresh instance, in which the function is not called again."""
        self._take(asked or {})
        return super().execute_complete(context, event)

    def defer(
        self, *, trigger: Any, method_name: str, kwargs: dict[str, Any] | None = None, timeout: Any = None
    ) -> NoReturn:
        """Defer, and hand on what the function has returned: the resuming instance does not know it."""
        asked = {"prompt": self.prompt, "model": self.model}
        super().defer(
            trigger=trigger,
            method_name=method_name,
            kwargs={**(kwargs or {}), "asked": asked},
            timeout=timeout,
        )

    def _take(self, asked: Mapping[str, Any]) -> None:
        for name, value in asked.items():
            setattr(self, name, value)


def _request_of(returned: object, function: str) -> Mapping[str, Any]:
    """The operator's arguments that a function has returned.

    :raises TypeError: it returned neither a text nor a dict of arguments of the request.
    """
    if isinstance(returned, str):
        return {"prompt": returned}
    nothing = "Nothing was submitted by this attempt"
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"@task.video {function}: must return the prompt, or a dict with prompt, model, …; it returned "
            f"{type(returned).__name__}. {nothing}"
        )
    if unknown := sorted(str(name) for name in returned if name not in KNOBS):
        raise TypeError(
            f"@task.video {function}: returned {unknown[0]!r}, which is no argument of a request; those are "
            f"{', '.join(KNOBS)}. {nothing}"
        )
    return returned


def video_task(
    python_callable: Callable[..., str | Mapping[str, Any]] | None = None,
    multiple_outputs: bool = False,
    **kwargs: Any,
) -> TaskDecorator:
    """Make a task that generates a video of what a function returns; in a Dag file it is ``@task.video``.

    The function is called once in each attempt, before the memory of earlier ones is read: let it cost little
    and return the same for the same arguments, and give a call of a language model a task of its own. It is
    not called again when the wait is over.

    :param python_callable: returns the prompt, or a dict of the arguments of
        :class:`~airflow_video_provider.operators.generate.VideoGenerateOperator` that go to the gateway
        (``prompt``, ``model``, ``images``, …), which win over those of the decorator. They are not templates.
    :param multiple_outputs: also push each field of the result as an XCom of its own.
    :param kwargs: arguments of ``VideoGenerateOperator`` (``model``, ``deferrable``, ``max_generations``, …)
        and of every Airflow task (``retries``, ``pool``, …).
    :raises TypeError: (when it runs) the function returned something else; nothing was submitted.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_VideoDecoratedOperator,
        **kwargs,
    )
