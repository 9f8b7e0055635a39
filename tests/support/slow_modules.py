"""A notebook's cell after which every view's module begins with a wait of 3 s."""

#: What anywidget gives up on: a module that needs longer than 2 s.
SLOW_MODULES = """
from colobench import ui
from colobench.ui.base.feed import LiveView

def subclasses(view):
    for each in view.__subclasses__():
        yield each
        yield from subclasses(each)

for each in subclasses(LiveView):
    each._esm = "await new Promise((done) => setTimeout(done, 3000));" + each._esm
"""
