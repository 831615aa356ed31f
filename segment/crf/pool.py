"""Photos refined beside the caller, in order, with a bounded backlog."""

import multiprocessing
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Generic, TypeVar

import cv2
import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerPool(Generic[Task, Result]):
    """Runs a function of one photo beside the caller, in order, with a bounded backlog.

    Args:
        function: Importable by name, of one task.
        workers: How many run at a time; 0 runs where it is submitted.
        threads: Whether workers are threads, for functions that release Python's lock where they
            take long; else they are processes, which take seconds to start.
    """

    def __init__(self, function: Callable[[Task], Result], workers: int, threads: bool) -> None:
        if workers < 0:
            raise ValueError(f"workers is {workers}; give 0 or more.")
        self.function, self.workers = function, workers
        self.pending: deque[Future[Result]] = deque()
        self.pool: Executor | None = None
        if workers and threads:
            self.pool = ThreadPoolExecutor(workers)
        elif workers:
            # A fresh process, not a fork: a fork would inherit locks held by torch's threads.
            context = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(workers, context, _start_worker)

    def submit(self, task: Task) -> Iterator[Result]:
        """Hand in a task; yields the results that are due, oldest first."""
        if self.pool is None:
            yield self.function(task)
            return
        self.pending.append(self.pool.submit(self.function, task))
        while len(self.pending) >= 2 * self.workers:
            yield self.pending.popleft().result()

    def drain(self) -> Iterator[Result]:
        """Yield what is still under way."""
        while self.pending:
            yield self.pending.popleft().result()

    def close(self) -> None:
        """End the workers, once the tasks under way are done."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process ends them
    warnings.filterwarnings("ignore", message="crf: ")  # the main process has said it
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
