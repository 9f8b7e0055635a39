"""Widgets that others fill in: abstract base classes with ipywidgets' own metaclass."""

from __future__ import annotations

from abc import ABCMeta

from traitlets import MetaHasTraits


class AbstractWidget(MetaHasTraits, ABCMeta):
    """The class of a widget that cannot be made before its abstract methods are there."""
