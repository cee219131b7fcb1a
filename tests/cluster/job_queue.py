"""A queue of Jobs that does to them what Kueue does, as a second field manager."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from urllib3.exceptions import HTTPError

from hack.rest import ApiError, Document, Rest, Watch

LABEL = "kueue.x-k8s.io/queue-name"
FLAVOUR = {"key": "example.com/reserved", "operator": "Exists", "effect": "NoSchedule"}
"""Toleration of the nodes that admitted Jobs run on."""
_ABSENT = 404


class JobQueue:
    """Suspends every labelled Job of a namespace as it is created, until it is admitted."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._rest = Rest(kubeconfig, "kueue")
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._watch = Watch()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._watch.end()
        self._thread.join()
        if self._failure and error is None:
            raise self._failure

    def admit(self, name: str) -> bool:
        """Give a Job its place and let it go; False while the Job controller has not stopped it yet."""
        job = self._rest.get(f"{self._path}/{name}")
        if not job["spec"].get("suspend") or job["status"].get("startTime"):
            return False
        tolerations = [*job["spec"]["template"]["spec"].get("tolerations", []), FLAVOUR]
        self._patch(name, {"spec": {"template": {"spec": {"tolerations": tolerations}}}})
        self._patch(name, {"spec": {"suspend": False}})
        return True

    def preempt(self, name: str) -> None:
        """Take a Job its place again."""
        self._patch(name, {"spec": {"suspend": True}})

    def _serve(self) -> None:
        try:
            while not self._watch.ended:
                for change, job in self._rest.watch(self._path, self._watch, labelSelector=LABEL):
                    if change == "ADDED" and not job["spec"].get("suspend") and not job["status"].get("startTime"):
                        with _absence_tolerated():
                            self.preempt(job["metadata"]["name"])
        except (ApiError, HTTPError) as error:
            self._failure = error

    def _patch(self, name: str, change: Document) -> None:
        self._rest.patch(f"{self._path}/{name}", change, fieldManager="kueue")


@contextmanager
def _absence_tolerated() -> Iterator[None]:
    """A Job may be deleted before it is suspended."""
    try:
        yield
    except ApiError as error:
        if error.code != _ABSENT:
            raise
