"""Make a training wait for SIGTERM when the checkpoint of step HOLD_AT_STEP is complete.

Python imports this module at its start from PYTHONPATH, in every process of a training. Where a job
sets PYTHONPATH itself, append it to the module that it changes.
"""

import os
import signal
import time

if step := os.environ.get("HOLD_AT_STEP"):
    from ffmerge.training import resumption

    unheld = resumption.complete

    def held(checkpoint) -> None:
        """Mark a checkpoint as complete; if it is that of the step, wait for the signal."""
        if checkpoint.name != f"checkpoint-{step}":
            unheld(checkpoint)
            return
        received = []
        handler = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *args: (received.append(args), handler(*args)))
        unheld(checkpoint)
        while not received:
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, handler)

    resumption.complete = held
