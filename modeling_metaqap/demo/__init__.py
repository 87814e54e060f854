"""The demo: one Gradio app, run by the Space and by `metaqap serve`. Needs the `space` extra."""

from .app import build_app, serve

__all__ = ["build_app", "serve"]
