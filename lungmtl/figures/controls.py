"""Figures that follow controls: drawn once on a page, and anew at every change in a live notebook."""

from collections.abc import Callable, Mapping
from typing import Any

from IPython.display import Markdown, display
from ipywidgets import Widget


def live(draw: Callable[..., Any], controls: Mapping[str, Widget]) -> None:
    """Show what `draw` makes of the values of the controls, and replace it whenever one of them changes.

    What is drawn is the cell's own output, not a widget's, so a page without a kernel shows it for the first values. A
    choice that `draw` refuses with a ValueError is answered with its sentence.
    """

    def drawn() -> Any:
        """The picture of the controls' present values, or the sentence that refuses them."""
        try:
            return draw(**{name: control.value for name, control in controls.items()})
        except ValueError as error:
            return Markdown(f"*{error}*")

    shown = display(drawn(), display_id=True)
    for control in controls.values():
        control.observe(lambda _: shown.update(drawn()), "value")
