"""The demo: one Gradio app, run by the Space and by `metaqap serve`. Needs the `space` extra."""

from .app import build_app, serve
from .limits import Limits

__all__ = ["Limits", "build_app", "serve"]
