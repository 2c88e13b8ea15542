"""A local gateway for writing and testing Dags without paying: ``python -m airflow_video_provider.sandbox``.

It stands beside the house: nothing here imports Airflow or the rest of the package, and nothing of the
package imports this. Its reading of the wire is its own, so that a test against it is a check of ours
and not our code agreeing with itself.

- ``settings``: what one sandbox is started with.
- ``tasks``: the store of tasks, payments and requests; a task's state as a pure function of (task, now).
- ``orders``: what a create call asks for, validated as a gateway would, before anything is paid.
- ``faults``: the failures on request, as data.
- ``replies``: how each family of gateways tells a task's state.
- ``media``: the MP4 files.
- ``serving``: ranges, dropped connections, bodies cut short.
- ``page``: the status page.
- ``app``: the routes; ``create_app(settings, clock=...)`` for tests in process.
- ``server``: real sockets, for ``__main__``.
"""
