"""The untrained model: the control that every method is compared with."""

from __future__ import annotations

from methods.interface import Method, MethodConfig, Target, register


@register
class Base(Method):
    """No training; evaluation sees the model as it is."""

    name = "base"
    title = "Base"
    paper = ""
    Config = MethodConfig
    trains = False

    @property
    def target(self) -> Target:
        """The model's own distribution."""
        return Target(base=True, beta=None)
