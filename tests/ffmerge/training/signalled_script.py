"""Run a script that sends itself signals: `signalled_script.py MOMENT SIGNAL SCRIPT ARGUMENT …`.

MOMENT is `start` (of the Trainer), `step-N` (in the middle of a step), `validation-N` (when that of
a step has begun), `saving-N` (while the checkpoint of a step is written; then twice), or `never`.
"""

import os
import runpy
import signal
import sys

from ffmerge.training import resumption, trainer
from ffmerge.training.trainer import ResumableTrainer

moment, name, *sys.argv = sys.argv[1:]
kind, _, step = moment.partition("-")
number = getattr(signal, name)


def at(owner, function: str, step_of, times: int = 1) -> None:
    """Send the signal when a function is about to run for the step."""
    original = getattr(owner, function)

    def sending(*args, **kwargs):
        if step_of(*args) == int(step or 0):
            for _ in range(times):
                os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, function, sending)


match kind:
    case "start":
        at(trainer, "_arguments", lambda *_: 0)
    case "step":
        at(ResumableTrainer, "training_step", lambda self, *_: self.state.global_step + 1)
    case "validation":
        at(ResumableTrainer, "evaluate", lambda self, *_: self.state.global_step)
    case "saving":
        at(resumption, "complete", lambda path: int(path.name.split("-")[1]), times=2)

sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
