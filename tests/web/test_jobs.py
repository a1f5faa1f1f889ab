"""The queue of jobs: order, progress, cancelling, and a process that ends or hangs."""

from __future__ import annotations

import threading
import time

import pytest

from tests.web.support import PlayedWorker, at_once, done
from vq.core.errors import UserError
from vq.web import jobs
from vq.web.jobs import Queue


def test_jobs_run_one_after_the_other_in_their_order():
    running, most, order = [0], [0], []

    def act(message, tell):
        running[0] += 1
        most[0] = max(most[0], running[0])
        order.append(message['asked']['x'])
        time.sleep(0.01)
        running[0] -= 1
        at_once(message, tell)

    queue = Queue({'root': 'here'}, lambda: PlayedWorker(act))
    added = [queue.add('draw', {'x': number}) for number in range(6)]
    assert [done(queue, job).state for job in added] == ['done'] * 6
    assert order == [*range(6)] and most == [1]
    assert queue._worker.got[0] == {'settings': {'root': 'here'}}
    queue.close()


def test_progress_previews_and_errors_are_told():
    heard = threading.Event()

    def act(message, tell):
        tell({'job': message['job'], 'share': 0.25, 'note': 'drawing', 'preview': 'data:one'})
        heard.wait(10)
        tell({'job': message['job'], 'error': 'no such class', 'hint': 'Choose another.'})

    queue = Queue({}, lambda: PlayedWorker(act))
    job = queue.add('draw', {})
    while not job.previews:
        time.sleep(0.001)
    assert (job.state, job.share, job.note, job.preview) == ('running', 0.25, 'drawing', 'data:one')
    heard.set()
    done(queue, job)
    assert (job.state, job.error, job.hint) == ('failed', 'no such class', 'Choose another.')
    queue.close()


def test_cancelling():
    """A waiting job does not begin; one that runs is asked to stop, and the next one runs in the same process."""
    started = []

    def act(message, tell):
        started.append(message['job'])
        while message['asked'] and message['job'] not in worker.cancelled:
            time.sleep(0.001)
        tell({'job': message['job'], **({'cancelled': True} if message['asked'] else {'done': {}})})

    worker = PlayedWorker(act)
    queue = Queue({}, lambda: worker)
    first, second, third = queue.add('draw', {'long': 1}), queue.add('draw', {'long': 1}), queue.add('draw', {})
    while not started:
        time.sleep(0.001)
    assert queue.ahead(second) == 1 and queue.ahead(third) == 2
    queue.cancel(second.number)
    queue.cancel(first.number)
    assert done(queue, third).state == 'done'
    assert (first.state, second.state) == ('cancelled', 'cancelled') and started == [first.number, third.number]
    assert worker.alive
    queue.close()


def test_a_job_that_does_not_stop_ends_with_its_process(monkeypatch):
    monkeypatch.setattr(jobs, 'GRACE', 0.05)
    workers = []

    def start():
        workers.append(PlayedWorker(lambda message, tell: None if message['asked'] else at_once(message, tell)))
        return workers[-1]

    queue = Queue({}, start)
    stuck, after = queue.add('draw', {'forever': 1}), queue.add('draw', {})
    while stuck.state != 'running':
        time.sleep(0.001)
    queue.cancel(stuck.number)
    assert done(queue, after).state == 'done' and stuck.state == 'cancelled'
    assert [worker.alive for worker in workers] == [False, True]
    queue.close()


def test_a_process_that_dies_fails_its_job_and_the_next_one_has_another():
    workers = []

    def start():
        worker = PlayedWorker(lambda message, tell: worker.end() if message['asked'] else at_once(message, tell))
        workers.append(worker)
        return worker

    queue = Queue({}, start)
    first, second = queue.add('draw', {'die': 1}), queue.add('draw', {})
    assert done(queue, second).state == 'done' and first.state == 'failed' and len(workers) == 2
    assert 'has ended' in first.error and 'memory' in first.hint
    queue.close()


def test_limits(monkeypatch):
    monkeypatch.setattr(jobs, 'WAITING', 2)
    monkeypatch.setattr(jobs, 'KEPT', 3)
    gate = threading.Event()

    def act(message, tell):
        gate.wait(10)
        at_once(message, tell)

    queue = Queue({}, lambda: PlayedWorker(act))
    first = queue.add('draw', {})
    while first.state != 'running':
        time.sleep(0.001)
    rest = [queue.add('draw', {}) for _ in range(2)]
    with pytest.raises(UserError, match='2 jobs wait already'):
        queue.add('draw', {})
    gate.set()
    done(queue, rest[-1])
    rest += [done(queue, queue.add('draw', {})) for _ in range(3)]
    with pytest.raises(UserError, match='there is no job 1'):
        queue.job(first.number)
    assert queue.job(rest[-1].number) is rest[-1]
    queue.close()


def test_a_job_of_the_server_itself_goes_first(monkeypatch):
    """Also if the queue is full: the page cannot show any run before the survey."""
    monkeypatch.setattr(jobs, 'WAITING', 1)
    gate, order = threading.Event(), []

    def act(message, tell):
        order.append(message['kind'])
        gate.wait(10)
        at_once(message, tell)

    queue = Queue({}, lambda: PlayedWorker(act))
    running = queue.add('draw', {})
    while running.state != 'running':
        time.sleep(0.001)
    later = queue.add('compare', {})
    queue.add('survey', {}, first=True)
    gate.set()
    done(queue, later)
    assert order == ['draw', 'survey', 'compare']
    queue.close()
