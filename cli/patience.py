"""Trying a call again while the services are away. Only for calls that may be repeated."""

import time
from collections.abc import Callable
from typing import TypeVar

from rag_client.errors import NotReady, Overloaded, RagError

_RETRY_SECONDS = 120.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.25, 5.0

Result = TypeVar("Result")


def patiently(
    call: Callable[[], Result],
    *,
    on_wait: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    is_hopeless: Callable[[RagError], bool] = lambda error: False,
) -> Result:
    """Calls until the services answer, for two minutes at most.

    Args:
        call: Safe to repeat.
        on_wait: Is told why before each pause.
        sleep: Waits this many seconds.
        is_hopeless: Which failures are raised at once.

    Raises:
        RagError: What the last try raised, or at once what waiting does not help.
    """
    waited, pause = 0.0, _FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except (NotReady, Overloaded) as error:
            if waited >= _RETRY_SECONDS or is_hopeless(error):
                raise
            pause = min(max(pause * 2, error.retry_after_seconds or 0.0), _LAST_PAUSE_SECONDS)
            waited += pause
            on_wait(error.message)
            sleep(pause)
