"""A metaclass for widgets that are abstract base classes."""

from __future__ import annotations

from abc import ABCMeta

from traitlets import MetaHasTraits


class AbstractWidget(MetaHasTraits, ABCMeta):
    """Metaclass of widgets that cannot be instantiated while abstract methods are missing."""
