"""Best-of-n: the untrained model at the same number of reward calls.

Instead of training, the budget of images is spread over the evaluation: n candidates are sampled
for each image that is asked for, each is scored once, and the one of highest reward is kept. With
``images`` training images a reward call each, and ``evaluation_images`` images of one evaluation,
n = max(1, images // evaluation_images). What it buys is paid again at every evaluation, where a
trained model pays once; it is the control for "would sampling more have done as well?".
"""

from __future__ import annotations

from methods.interface import Method, MethodConfig, Task, register


@register
class BestOfN(Method):
    """Keeps the best of ``candidates`` images by the reward."""

    name = "best-of-n"
    title = "Best of n"
    paper = ""
    Config = MethodConfig
    trains = False

    def __init__(self, task: Task, config: MethodConfig) -> None:
        super().__init__(task, config)
        self.candidates = max(1, task.images // max(1, task.evaluation_images))
